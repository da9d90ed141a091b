"""What is known of calls whose arguments have the same shapes: what travels between stages, and in which schedule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import nn

from ...micro import rerun, state
from . import handing, travel
from .owned import Stages
from .schedule import Rows, Schedule
from .travel import Form

if TYPE_CHECKING:
    from ...micro.rerun import Work

Piece = Callable[["Work", int, Sequence[Any], Any], tuple[Any, Any]]
"""Computes a piece of a work with a number, given its arguments and what arrived: outputs, and what leaves."""
_REMEMBERED = 8
"""Kinds of calls, each with the buffers of its schedules."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Of calls."""

    stages: Stages
    pieces: int
    draws: bool
    """Whether the model draws random numbers."""
    arrives: dict[int, Form]
    """What arrives at this stage, by the rows of a piece; nothing at the first one."""
    leaves: dict[int, Form]
    """What leaves it; nothing at the last one."""
    schedules: dict[bool, Schedule] = field(default_factory=dict)

    def schedule(self, *, goes_back: bool) -> Schedule:
        """Forward only, or forward and back."""
        if goes_back not in self.schedules:
            rows = Rows(
                arrives=_most(self.arrives),
                leaves=_most(self.leaves),
                arrives_as=_type(self.arrives),
                leaves_as=_type(self.leaves),
            )
            self.schedules[goes_back] = Schedule(self.stages, rows, self.pieces, goes_back=goes_back)
        return self.schedules[goes_back]

    def received(self, row: torch.Tensor, rows: int) -> travel.Received | None:
        """What the last block of the stage before gave for a piece of so many *rows*; None at the first stage."""
        form = self.arrives.get(rows)
        return None if form is None else travel.Received(form=form, value=form.received(row))

    def sent(self, value: Any, rows: int) -> torch.Tensor:
        """*value*, which this stage's last block gave for a piece of so many *rows*, as a row of numbers."""
        return travel.row(value, self.leaves[rows], _most(self.leaves))


class Kinds:
    """Of one model."""

    def __init__(self, root: nn.Module, stages: Stages) -> None:
        self._root = ref(root)
        self.stages = stages
        self.is_known = True
        """Whether the kind of the call under way is known; else it is just being looked at."""
        self._known: dict[Any, Kind] = {}

    def of(self, work: "Work", piece: Piece) -> Kind:
        """The kind of *work*; where it is a new one, *piece* computes a piece of each length, stage after stage."""
        # In training mode a model may draw random numbers, in evaluation it does not.
        modes = tuple(module.training for module in self._root().modules())  # type: ignore[union-attr]
        key = (modes, *_key(work))
        if key not in self._known:
            while len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self.is_known = False
            try:
                self._known[key] = self._looked_at(work, piece)
            finally:
                self.is_known = True
        return self._known[key]

    def _looked_at(self, work: "Work", piece: Piece) -> Kind:
        arrives: dict[int, Form] = {}
        leaves: dict[int, Form] = {}
        draws = False
        before = state.chance()
        for rows, number in _lengths(work.pieces).items():
            given = None
            for stage in range(self.stages.span.stages - 1):
                is_mine = stage == self.stages.span.stage
                left = self._left(work, number, piece, given) if is_mine else None
                mine = (travel.of(left), drew(before)) if is_mine else None
                form, drew_here = handing.told(mine, stage, self.stages)
                draws = draws or drew_here
                given = travel.Received(form=form, value=form.received(handing.row(left, form, stage, self.stages)))
                leaves |= {rows: form} if is_mine else {}
                arrives |= {rows: form} if stage == self.stages.span.stage - 1 else {}
        state.put_back(before)
        return Kind(stages=self.stages, pieces=len(work.pieces), draws=draws, arrives=arrives, leaves=leaves)

    @staticmethod
    def _left(work: "Work", number: int, piece: Piece, given: travel.Received | None) -> Any:
        # Without what a gradient is asked for: where operations are counted, torch looks for its graph.
        plain = [leaf.data if isinstance(leaf, torch.Tensor) else leaf for leaf in work.leaves]
        leaves = [rerun.cut(work, leaf, work.pieces[number]) for leaf in plain]
        return piece(work, number, leaves, given)[1]


def seeds(pieces: int, *, draws: bool) -> tuple[Sequence[int], state.Chance]:
    """Of the random numbers of each piece, and the random numbers after the call, the same on all stages."""
    if not draws:
        return (), state.chance()
    start = int(torch.randint(2**60, ()))
    return [start + number for number in range(pieces)], state.chance()


def drew(before: state.Chance) -> bool:
    """Whether random numbers were drawn since *before*."""
    now = state.chance()
    return any(mine is not None and not torch.equal(mine, then) for mine, then in zip(now, before, strict=True))


def _key(work: "Work") -> tuple[Any, ...]:
    """The same for all calls of one kind."""
    leaves = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in work.leaves)
    return (work.is_training, work.pieces, str(work.spec), leaves, repr(work.autocasts))


def _lengths(pieces: Sequence[tuple[int, int]]) -> dict[int, int]:
    """A piece of each length, by its rows."""
    return {end - start: number for number, (start, end) in enumerate(pieces)}


def _most(forms: dict[int, Form]) -> int:
    return max((form.numbers for form in forms.values()), default=1)


def _type(forms: dict[int, Form]) -> torch.dtype:
    return next((form.dtype for form in forms.values()), torch.float32)
