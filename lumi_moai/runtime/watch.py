"""On one machine without Slurm nobody ends a job whose rank died, so the ranks watch each other.

Slurm has `srun --kill-on-bad-exit` for this and torchrun its agent; submitit's local executor waits for all ranks, and
a rank that waits for a dead one waits for ever.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from .meeting import Meeting
from .ranks import Ranks

_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 2.0
"""Ranks that end with the same error get this long to end by themselves."""


def keep_watch(ranks: Ranks, meeting: Meeting, pids: Mapping[int, int]) -> None:
    """End this process soon after another rank, one of *pids* by rank, has died or failed."""
    others = {rank: pid for rank, pid in pids.items() if rank != ranks.rank}
    if others:
        threading.Thread(target=_watch, args=(others, meeting), name="lumi-moai-watch", daemon=True).start()


def leave(ranks: Ranks, meeting: Meeting, code: int) -> None:
    """Tell the others that this rank is about to end with exit code *code*."""
    meeting.post(f"ended-{ranks.rank}", code)


def _watch(others: dict[int, int], meeting: Meeting) -> None:
    while others:
        time.sleep(_LOOK_SECONDS)
        for rank, pid in list(others.items()):
            if _alive(pid):
                continue
            code = meeting.read(f"ended-{rank}")
            if code != 0:
                _follow(rank, code)
            del others[rank]


def _follow(rank: int, code: object) -> None:
    if isinstance(code, int):
        time.sleep(_GRACE_SECONDS)
    else:
        os.write(2, f"lumi-moai: rank {rank} was killed (out of memory?), so all ranks stop\n".encode())
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) and 0 < code < 256 else 1)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists() and _answers(pid)
    except OSError:
        return False
    return state not in "ZX"


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
