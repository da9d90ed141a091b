"""The signal that Slurm sends ahead of the time limit: it never kills a rank, it is noted."""

import os
import signal
from types import FrameType

_HELD: dict[str, bool] = {"rung": False}


def time_is_short() -> bool:
    """Whether the signal ahead of the time limit has come."""
    return _HELD["rung"]


def listen(name: str, *, announce: bool) -> None:
    """Note the signal called *name* (such as `USR2`) from now on; *announce* says it in the log, once."""
    number = getattr(signal, f"SIG{name.removeprefix('SIG')}", None)
    if number is None or number == signal.SIGTERM:  # a rank that is told to end, ends
        return
    _HELD["rung"] = False
    owner = os.getpid()

    def note(signum: int, frame: FrameType | None) -> None:
        first = not _HELD["rung"]
        _HELD["rung"] = True
        # Slurm signals every process of the step, and the script's own children have this handler from their birth.
        if first and announce and os.getpid() == owner:
            os.write(2, b"lumi-moai: the time limit is near, the job will be ended soon\n")

    signal.signal(number, note)
