"""A run that trains when it is its turn: so that two runs are measured side by side, in turns of a few steps.

The bench writes the number of steps of a turn to our stdin, we answer with the seconds it took, by the clock and of the
CPU, through the pipe that BENCH_PIPE names; the first answer is the CPU's of the start. No step is under way at the end of
a turn.
"""

import os
import time

_OUT = int(os.environ["BENCH_PIPE"])
_STDIN = os.fdopen(os.dup(0), "r")  # the runtime closes the script's
_state = {"left": 0, "began": None}


def ready():
    """Called before each step: end the turn when its steps are done, and wait for the next one."""
    if _state["began"] is not None:
        _state["left"] -= 1
        if _state["left"]:
            return
    began = _state["began"] or (time.perf_counter(), 0.0)
    wall, cpu = (now - then for now, then in zip(_now(), began, strict=True))
    os.write(_OUT, f"{wall} {cpu}\n".encode())
    words = _STDIN.readline()
    if not words:
        os._exit(0)
    _state["left"] = int(words)
    _state["began"] = _now()


def _now():
    return time.perf_counter(), time.process_time()
