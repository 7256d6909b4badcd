"""The engine's process: ``python -m tunewise.server.inference.process LIMITS``.

Messages come on standard input and go out on standard output. When the input ends, because the
server ended or was killed, this process ends too.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
from typing import Any

from tunewise.crash import log_to_stderr


def main() -> None:
    """Serve until the input ends."""
    # Nothing that a library prints may come between the messages.
    output = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    source = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    log_to_stderr("engine: %(levelname)s %(name)s: %(message)s")

    from tunewise.server.inference import wire

    engines: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        # Before the engine is there, for torch takes seconds to import: a server that stops
        # meanwhile need not wait for it.
        message = wire.receive(source)
        if message is None:
            os._exit(0)
        engine = engines.get()
        while message is not None:
            engine.take(message)
            message = wire.receive(source)
        engine.take(None)
        # A step that takes long, or a model that loads, must not outlive the server by much.
        threading.Timer(5.0, os._exit, (0,)).start()

    threading.Thread(target=read, name="reader", daemon=True).start()

    # What the imports make stays; a collector that looks through it again and again takes a tenth
    # of their time or more.
    gc.disable()
    import torch

    from tunewise.server.inference.engine import Engine
    from tunewise.server.inference.limits import EngineLimits

    gc.freeze()
    gc.enable()

    limits = EngineLimits(**json.loads(sys.argv[1]))
    torch.set_num_threads(limits.threads or _threads())

    def send(message: dict[str, Any]) -> None:
        try:
            wire.send(output, message)
        except OSError:
            os._exit(0)  # the server is gone, and with it everyone who waits

    engine = Engine(limits, send)
    engines.put(engine)
    send({"alive": True})
    engine.run()
    output.flush()
    os._exit(0)  # threads that load or prepare are not waited for


def _threads() -> int:
    """Half the processors: training jobs and the API run beside."""
    return max(1, (os.cpu_count() or 2) // 2)


if __name__ == "__main__":
    main()
