"""`itertools.cycle(loader)`: batches that were kept by it, and come again, are at hand as those that a loader fetches.

Nothing else tells that a script is back at a batch: what it does with one that has gone back may as well be for a log.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from .seen import Seen
from .share import Share

_OWN = itertools.cycle
_SEEN: list[Seen] = []


class _Kind(type):
    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, _OWN)

    def __call__(cls, iterable: Any) -> Any:
        return _batches(_SEEN[0], iter(iterable)) if isinstance(iterable, DataLoader) else _OWN(iterable)


class Cycle(metaclass=_Kind):
    """`itertools.cycle`; that of a loader tells the engine which batch comes again."""


def install(seen: Seen) -> None:
    """Put ours in its place, also in modules that have imported it already."""
    _SEEN[:] = [seen]
    itertools.cycle = Cycle  # type: ignore[misc,assignment]
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("cycle") is _OWN:
            vars(module)["cycle"] = Cycle


def _batches(seen: Seen, fetched: Iterator) -> Iterator:
    kept: list[tuple[Any, Share | None]] = []
    for batch in fetched:
        kept.append((batch, seen.engine.at_hand.fetched if seen.engine else None))
        yield batch
    while kept:
        for batch, share in kept:
            if share is not None:
                _hand_out(seen, share)
            yield batch


def _hand_out(seen: Seen, share: Share) -> None:
    if seen.engine:
        seen.engine.in_training = True
        share.went_back.clear()
        seen.engine.at_hand.begin(share)
