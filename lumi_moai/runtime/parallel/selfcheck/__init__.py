"""The self-check: the first step on a small batch, all ranks with their rows against every rank with all rows.

The second is what one device computes, with the same weights in the same layout, so the two must agree in loss and
gradient norm. They do not where a loss is no mean over rows: a sum or a masked mean written by hand, a loss that
compares rows with each other. The script's own loop is run for it (`loop`), up to the end of its first backward
(`trial`).
"""

from typing import TYPE_CHECKING, Any

import torch

from ....errors import RequestError
from ... import group
from ..share import bounds
from . import loop, slices
from .loop import CannotBeChecked
from .trial import Found, Trial, run

if TYPE_CHECKING:
    from ..engine import Engine

_LOOPS = 8
"""No more loops of a script are checked; a loop in a loop would else be found again and again."""
_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 1e-2}
_FINE = 1e-3
_NEAR_NOTHING = 1e-6


class SelfCheck:
    """Which loops of the script were checked, and the run that is under way."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.trial: Trial | None = None
        self._places: set[tuple[str, int]] = set()

    def look(self, loader: Any, batch: Any) -> None:
        """Check the loop that has just been given its first *batch* of *loader*, unless it was.

        Raises RequestError, on all ranks alike, when one device comes to another result.
        """
        frame = loop.caller()
        place = loop.place_of(frame) if frame else ("", 0)
        if place in self._places or len(self._places) >= _LOOPS:
            return
        self._places.add(place)
        try:
            whole, cut, rows = self._both(loader, batch, frame)
        except CannotBeChecked as why:
            self.engine.say_once("self-check", f"the self-check could not be made: {why}")
            return
        self._compare(whole, cut, rows)

    def _both(self, loader: Any, batch: Any, frame: Any) -> tuple[Found, Found, int]:
        if frame is None:
            raise CannotBeChecked("a library fetches the batches")
        found = loop.find(frame)
        where = self.engine.settle()
        part = slices.small(batch, where.data_ranks)
        rows = slices.count(part)
        start, end, share = bounds(rows, where.data_rank, where.data_ranks)
        whole = self._run(found, Trial(loader, part, None))
        if whole.drew:
            raise CannotBeChecked("its step draws random numbers, and other rows would draw others")
        return whole, self._run(found, Trial(loader, slices.rows(part, start, end), share)), rows

    def _run(self, found: loop.Loop, trial: Trial) -> Found:
        self.trial = trial
        with self.engine.aside():
            try:
                models = self.engine.models()
                parameters = [parameter for model in models for parameter in model.parameters()]
                return run(found, trial, list({id(each): each for each in parameters}.values()), models)
            finally:
                self.trial = None

    def _compare(self, whole: Found, cut: Found, rows: int) -> None:
        bf16 = {torch.bfloat16} if self.engine.settle().plan.precision == "bf16" else set()
        limit = max(_TOLERANCE.get(kind, _FINE) for kind in (*whole.types, *bf16))
        differs = [not _near(mine, theirs, limit) for mine, theirs in ((cut.loss, whole.loss), (cut.norm, whole.norm))]
        if not any(group.everyones(any(differs))):
            return
        ranks = self.engine.settle().data_ranks
        raise RequestError(
            f"the self-check found that {ranks} ranks do not compute what one device does: on {rows} rows one device"
            f" has loss {whole.loss:.6g} and gradient norm {whole.norm:.6g}, the ranks have {cut.loss:.6g} and"
            f" {cut.norm:.6g}; a loss must be a mean over rows, or one of torch's own functions (not a sum or a masked"
            " mean written by hand, nor one that compares rows); mend it, or submit with --self-check off if you know"
            " better"
        )


def _near(mine: float, theirs: float, limit: float) -> bool:
    return abs(mine - theirs) <= limit * max(abs(theirs), _NEAR_NOTHING)
