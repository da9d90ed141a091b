"""Batches that every rank puts together whole, as one device does, to take its own rows from them.

A collate function that is given a rank's rows pads them to the longest of these. Where the self-check finds that the
result depends on it, ranks go on like this: it reads all samples on every rank, which is why it is not the rule.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, default_collate

from ...errors import RequestError
from .. import group
from ..meeting import write_json
from . import mixed_rows
from .ahead import News
from .loader import Cutter
from .parts import is_nested, parts
from .place import Place
from .share import Share
from .widths import Widths

if TYPE_CHECKING:
    from .engine import Engine


class WholeBatches:
    """Whether this run does so, kept in its folder for the next start."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.file = engine.me.run / "whole-batches.json"
        self.is_on = False
        self.widths = Widths(engine)

    def begin(self, place: Place, end: Callable[[], None]) -> Cutter:
        """Do as an earlier start of this run did; all ranks come here together.

        It gives what cuts the batches of this rank, whose *place* that is.
        """
        self.is_on = group.agree(self.file.exists())
        return Cutter(place, end, self.engine.time_first.turned, self.are_mixed, self._may_ask_again)

    def _may_ask_again(self, loader: DataLoader | None) -> bool:
        return self.is_on or self.engine.self_check.is_due or (loader is not None and self.widths.is_curious(loader))

    def take(self, reason: str) -> None:
        """Do so from the batch at hand on; all ranks come here together.

        Raises RunError where the run folder cannot be written.
        """
        self.is_on = True
        if self.engine.rank == 0:
            write_json(self.file, {"reason": reason})

    def are_mixed(self, loader: DataLoader) -> bool:
        """Whether *loader* must put them together at any rate, since its collate function mixes rows."""
        with self.engine.unjournaled():
            found = mixed_rows.are_in(loader)
        if found:
            self.engine.say_once(
                "mixed",
                "a collate function makes rows out of several samples, or takes whole batches only, so each rank puts"
                " whole batches together, as one device does, which reads all samples on every rank; to mix rows behind"
                " the loader spares that",
            )
        return found

    def handed_out(self, loader: DataLoader | None, batch: Any, share: Share | None) -> Any:
        """What the script gets as *batch* of *loader*, which was cut as *share* says."""
        if loader is None or share is None or not self.may_change(loader):
            return batch
        if not self.is_on:
            return self.widths.filled(loader, batch, share)
        with self.engine.unjournaled():
            return self.engine.cutter.as_one_device(loader, batch, share)

    def may_change(self, loader: DataLoader | None) -> bool:
        """Whether a batch of *loader* may be handed out as another one than it gave."""
        return loader is not None and loader.batch_sampler is not None and loader.collate_fn is not default_collate

    def put_in_place(self, news: News | None, held: Any) -> None:
        """The batch that *news* tells of becomes that, where a library has it already as *held*."""
        if news is None:
            return
        found = self.handed_out(news.loader, news.batch, news.share)
        if found is not news.batch:
            _become(held, found)


def _become(held: Any, found: Any) -> None:
    """*held* gets what is in *found*, for everybody who holds it.

    Raises RequestError where that cannot be.
    """
    if isinstance(held, torch.Tensor):
        with torch._C.DisableTorchFunctionSubclass():
            held.data = found.to(held.device, held.dtype)
        return
    others = parts(found)
    for key, part in parts(held).items():
        if isinstance(part, torch.Tensor) or is_nested(part):
            _become(part, others[key])
        elif not _is_same(part, others[key]):
            _put(held, key, others[key])


def _is_same(part: Any, other: Any) -> bool:
    try:
        same = part == other
        return bool(same.all() if hasattr(same, "all") else same)
    except ValueError:  # of arrays of unlike shapes
        return False


def _put(held: Any, key: Any, part: Any) -> None:
    try:
        held[key] = part
    except TypeError:
        raise RequestError(
            f"a {type(held).__name__} with {part!r}, which depends on how far rows are padded, cannot be changed where"
            " the library has it; let the collate function give a dictionary or a list, or start the run again, which"
            " begins with whole batches"
        ) from None
