"""Ranks that wait for each other without end: the run stops with one sentence that names both places.

A script that takes a sum, or reads a number, in an `if` about single rows does so on some ranks only. These wait in a
meeting to which the others, who wait in their next one, never come. A thread looks where the script stands.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch.distributed as dist

from .. import group
from ..here import Here
from ..meeting import meet
from ..watch import leave
from .counts import users

VARIABLE = "LUMI_MOAI_STUCK_SECONDS"
_SECONDS = 120.0
"""No exchange of training takes as long."""
_LOOKS = 12
_MEETS = ("torch.distributed.", "lumi_moai.runtime.group", "lumi_moai.runtime.parallel.")
"""The modules in which a rank waits for the others."""
_KEY = "lumi-moai-stuck-{}"
_MARK = " <- "


def watch(me: Here, steps: Callable[[], int]) -> None:
    """Look from now on, beside the script; *steps* tells how many this rank has made."""
    seconds = float(os.environ.get(VARIABLE, _SECONDS))
    if me.ranks.world_size < 2 or seconds <= 0:
        return
    store: Any = dist.distributed_c10d._get_default_store()
    threading.Thread(target=_look, args=(store, me, steps, seconds / _LOOKS), daemon=True).start()


def _look(store: Any, me: Here, steps: Callable[[], int], pause: float) -> None:
    before, looks, rank, ranks = None, 0, me.ranks.rank, me.ranks.world_size
    while True:
        time.sleep(pause)
        place = _waits_at(sys._current_frames().get(threading.main_thread().ident or 0))
        now = (place, steps(), group.exchanges())
        before, looks = now, looks + 1 if place and now == before else 0
        try:
            store.set(_KEY.format(rank), place if looks >= _LOOKS else "")
            found = _places(store, ranks) if looks >= _LOOKS else []
        except RuntimeError:  # rank 0, which keeps the store, is gone
            return
        if len(found) == ranks and all(found) and len(set(found)) > 1:
            _stop(found, me, pause)


def _places(store: Any, ranks: int) -> list[str]:
    keys = [_KEY.format(rank) for rank in range(ranks)]
    return [each.decode() for each in store.multi_get(keys)] if store.check(keys) else []


def _waits_at(frame: FrameType | None) -> str:
    """Where the script waits for other ranks, and in which functions of ours; empty if it does not."""
    if frame is None or not f"{frame.f_globals.get('__name__', '')}.".startswith(_MEETS):
        return ""
    within: list[str] = []
    while frame is not None:
        if users.is_users(frame.f_code.co_filename, frame.f_globals.get("__name__", "")):
            return _MARK.join((f"line {frame.f_lineno} of {os.path.basename(frame.f_code.co_filename)}", *within))
        within.append(frame.f_code.co_name)
        frame = frame.f_back
    return "the end of the script"


def _stop(found: list[str], me: Here, pause: float) -> None:
    rank = me.ranks.rank
    other = next(place for place, each in enumerate(found) if each != found[0])
    if rank == 0:
        first, second = (found[each].partition(_MARK)[0] for each in (0, other))
        print(
            f"lumi-moai: rank 0 waits for the other ranks at {first}, and rank {other} at {second}, and"
            " neither will come; a sum, a loss or a number that is read in an if about single rows is so on some"
            " ranks only: take it before the if, on every rank",
            file=sys.__stderr__,  # while a self-check runs the other is silent
            flush=True,
        )
    time.sleep((3 if rank == 0 else 4) * pause)  # until every rank has seen it, and rank 0 has said it
    leave(me.ranks, meet(me.run, me.ranks), 1)
    os._exit(1)
