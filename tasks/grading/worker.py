"""The process behind the pool: one request in, one or two replies out, within its memory, and never longer than asked.

It is started by `pool.py`, reads stdin and replies on stdout. A message is a length in four bytes and JSON. It ends
when its parent does: idle, by looking; busy, by a timer of its own that nothing in a calculation can hold up.
"""

import json
import os
import resource
import select
import signal
import struct
import sys
from typing import Any

from harness.nouns import Verdict

HEADER = struct.Struct(">I")
LOOK_AROUND_S = 1.0
GRACE_S = 1.0
DEEPEST_RECURSION = 4000


def serve(memory_mb: int) -> None:
    """Answer requests from stdin until it closes or the parent is gone."""
    parent, replies = os.getppid(), os.dup(1)
    os.dup2(2, 1)
    from .prover import prover
    from .symbolic import second_reading

    # A warm-up makes the imports and caches of sympy part of the start, not of the first answer.
    prover(lambda: None)
    limit_memory(memory_mb)
    sys.setrecursionlimit(DEEPEST_RECURSION)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send(replies, {"ready": True})
    while (request := receive(parent)) is not None:
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"] + GRACE_S)
        send(replies, answer(request, replies, second_reading))
        signal.setitimer(signal.ITIMER_REAL, 0)


def answer(request: dict[str, Any], replies: int, second_reading: Any) -> dict[str, str]:
    """The verdict as a message; whatever goes wrong inside is a verdict too."""
    from .judge import judge
    from .nodes import Undecided
    from .prover import prover
    from .rules import Rules

    def provisional() -> None:
        if request["provisional"]:
            send(replies, {"provisional": "digits agree"})

    try:
        verdict = judge(
            request["gold"], request["answer"], Rules(**request["rules"]), prover(provisional), second_reading
        )
    except Undecided as trouble:
        verdict = Verdict("wrong", f"not shown to be equal ({trouble})")
    except MemoryError:
        verdict = Verdict("timeout", "passed the memory limit")
    except Exception as trouble:
        verdict = Verdict("unparsed", f"{type(trouble).__name__} while comparing")
    return {"outcome": verdict.outcome, "reason": verdict.reason}


def limit_memory(memory_mb: int) -> None:
    """Bound the address space and forbid core files."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def receive(parent: int) -> Any:
    """The next request, or None when there will be none."""
    while not select.select([0], [], [], LOOK_AROUND_S)[0]:
        if os.getppid() != parent:
            return None
    header = exactly(HEADER.size)
    return json.loads(exactly(HEADER.unpack(header)[0])) if len(header) == HEADER.size else None


def exactly(count: int) -> bytes:
    """So many bytes from stdin, fewer only at its end."""
    got = b""
    while len(got) < count and (piece := os.read(0, count - len(got))):
        got += piece
    return got


def send(replies: int, message: dict[str, Any]) -> None:
    """Write one message."""
    body = json.dumps(message).encode()
    os.write(replies, HEADER.pack(len(body)) + body)
