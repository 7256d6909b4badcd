"""Pretrain the small base model that Tunewise ships, on generated text only.

    python scripts/pretrain_tiny.py --out DIR --minutes 75 --seed 0 --threads 2
    python scripts/pretrain_tiny.py --out DIR --smoke

The same steps, seed and thread count give the same model on the same machine. A run writes
checkpoints into ``DIR/.work`` and goes on from them with ``--resume``.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "src")]

if TYPE_CHECKING:
    from tiny.team import Team

CONTEXT = 2048


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder the model is written to")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="training budget in minutes of wall time")
    budget.add_argument("--steps", type=int, help="training budget in steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU processes of one thread each")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--tokens-per-step", type=int, default=4608)
    parser.add_argument("--smoke", action="store_true", help="a few steps at tiny sizes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--export-only", action="store_true", help="write the model folder from the last checkpoint"
    )
    parser.add_argument("--samples", type=int, default=200, help="conversations per held-out score")
    parser.add_argument("--note", default="", help="a sentence for the model card")
    return parser.parse_args()


def work(args: argparse.Namespace, team: Team) -> None:
    """One member's part of a run; the first member also writes the model folder."""
    import torch
    from tokenizers import Tokenizer

    from tiny import card, network
    from tiny.loop import Plan, State, train

    device = (
        args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    )
    shape = (
        {"width": 64, "layers": 2, "heads": 4, "inner": 64}
        if args.smoke
        else {"width": 256, "layers": 4, "heads": 8, "inner": 768}
    )
    folder: Path = args.out / ".work"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = network.build(tokenizer.get_vocab_size(), CONTEXT, seed=args.seed, **shape)
    if team.rank == 0:
        print(
            json.dumps(
                {"parameters": sum(p.numel() for p in model.parameters()), "device": device}
            ),
            flush=True,
        )
    if args.smoke:
        plan = Plan(
            args.seed, None, args.steps or 6, tokens_per_step=512, check_every=3, save_every=3
        )
    else:
        plan = Plan(
            args.seed,
            args.minutes,
            args.steps or (None if args.minutes else 6000),
            args.tokens_per_step,
        )
    if args.export_only:
        kept = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=False)
        model.load_state_dict(kept["model"])
        state = State(**kept["state"])
    else:
        state = train(model, tokenizer, plan, folder, device, args.resume, team)
    if team.rank == 0:
        card.export(
            model,
            tokenizer,
            args.out,
            plan,
            state,
            device,
            CONTEXT,
            samples=4 if args.smoke else args.samples,
            note=args.note,
        )


def main() -> None:
    """Train the tokenizer, then the model, score it, and write the model folder."""
    args = arguments()
    import torch

    from tiny import team, vocabulary

    folder = args.out / ".work"
    folder.mkdir(parents=True, exist_ok=True)
    held = folder / "tokenizer.json"
    if not ((args.resume or args.export_only) and held.exists()):
        vocabulary.build_tokenizer().save(str(held))
    on_gpu = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
    alone = on_gpu or args.smoke or args.export_only or args.threads == 1
    torch.set_num_threads(1 if args.threads == 1 else torch.get_num_threads())
    team.run(1 if alone else args.threads, partial(work, args))


if __name__ == "__main__":
    main()
