"""Compiles schemas on trial: ``python -m tunewise.server.inference.schema_trial SECONDS``.

A line of standard input holds a schema; an empty line of output says that it was compiled, with
success or without. A schema that takes too long or too much memory ends the process.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress

_BYTES = 2 << 30


def main(seconds: float) -> None:
    """Compile one schema after the other until the input ends."""
    import llguidance

    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    for line in sys.stdin.buffer:
        # The system's own alarm ends the process whatever the compiler is busy with, and also
        # where whoever asked is gone.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        asked = json.loads(line)
        with suppress(ValueError):
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(asked["schema"]), overrides=asked["options"]
            )
            llguidance.LLMatcher.validate_grammar(grammar)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
