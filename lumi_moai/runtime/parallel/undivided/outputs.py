"""What a model gives: how the ranks' parts go together, found by comparing them with what it gives for all rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .. import marks, under_way
from ..counts import OfAll, of_all
from ..share import Share
from .gathered import Cut, Scaled, waiting, whole_of

_CLOSE = 1e-4
_CLOSE_LOW = 3e-2
"""With 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """An output that has the rows of the batch."""

    dim: int
    each: int
    """How many of its rows belong to one of the batch."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """The outputs of one kind of call."""

    spec: TreeSpec
    leaves: tuple[Rows | None, ...]
    """None for what is the same for all rows, such as a loss."""
    has_loss: bool


def form(whole: Any, mine: Any, cut: Cut) -> Form | str:
    """How *mine*, of this rank's rows, goes together with that of others to *whole*; else what stands against it."""
    (every, spec), (own, own_spec) = tree_flatten(whole), tree_flatten(mine)
    if spec != own_spec:
        return "it returns something else for fewer rows"
    found: list[Rows | None] = []
    for first, second in zip(every, own, strict=True):
        one = _form(first, second, cut)
        if isinstance(one, str):
            return one
        found.append(one)
    has_loss = any(
        rows is None and isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        for rows, leaf in zip(found, own, strict=True)
    )
    return Form(spec=spec, leaves=tuple(found), has_loss=has_loss)


def _form(whole: Any, mine: Any, cut: Cut) -> Rows | str | None:
    if not isinstance(whole, torch.Tensor) or not isinstance(mine, torch.Tensor):
        return None if type(whole) is type(mine) and whole == mine else "it returns an object that tells of all rows"
    if type(whole) not in (torch.Tensor, OfAll) or type(mine) not in (torch.Tensor, OfAll):
        return f"it returns a {type(whole).__name__}"
    if whole.shape == mine.shape:
        return None if is_close(whole, mine) else _together(whole)
    rows = _rows(whole.shape, mine.shape, cut)
    if rows is None:
        return "it returns something that has not the batch's rows"
    here = replace(cut, dim=rows.dim, each=rows.each).mine(whole)
    return rows if is_close(here, mine) else "a row of what it returns depends on other rows"


def _together(whole: torch.Tensor) -> str:
    if whole.dim():
        return "all rows together make something that it returns"
    return "it returns a number of all rows that is not a loss of torch's alone"


def _rows(whole: Sequence[int], mine: Sequence[int], cut: Cut) -> Rows | None:
    unlike = [dim for dim, (first, second) in enumerate(zip(whole, mine, strict=False)) if first != second]
    if len(whole) != len(mine) or len(unlike) != 1:
        return None
    each, rest = divmod(whole[unlike[0]], cut.total)
    return Rows(dim=unlike[0], each=each) if not rest and mine[unlike[0]] == each * cut.part_of(cut.rank)[1] else None


def is_close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors of one shape are the same but for rounding; what is no number is not."""
    if first.dtype != second.dtype:
        return False
    if not first.is_floating_point():
        return torch.equal(first, second)
    low = first.dtype.itemsize < 4 or any(torch.is_autocast_enabled(kind) for kind in ("cpu", first.device.type))
    first, second = first.double(), second.double()
    finite = torch.isfinite(first)
    if not torch.equal(first[~finite], second[~finite]):
        return False
    if not finite.any():
        return True
    first, second = first[finite], second[finite]
    return bool((first - second).abs().max() <= (_CLOSE_LOW if low else _CLOSE) * first.abs().max())


def joined(result: Any, known: Form, cut: Cut, share: Share, *, waits: bool) -> tuple[bool, Any]:
    """*result* of a model with the rows of all ranks; False and itself when it is not of the *known* form.

    *waits*: a gradient goes past the loss, which must have its value.
    """
    leaves, spec = tree_flatten(result)
    if spec != known.spec or not all(_fits(leaf, rows, cut) for leaf, rows in zip(leaves, known.leaves, strict=True)):
        return False, result
    made: dict[int, Any] = {}
    for leaf, rows in zip(leaves, known.leaves, strict=True):
        if id(leaf) in made or not isinstance(leaf, torch.Tensor):
            continue
        if rows is None:
            made[id(leaf)] = _number(leaf, share, waits=waits)
        else:
            at = replace(cut, dim=rows.dim, each=rows.each)
            made[id(leaf)] = waiting(leaf, at) if known.has_loss else whole_of(leaf, at)
    return True, tree_unflatten([made.get(id(leaf), leaf) for leaf in leaves], spec)


def _fits(leaf: Any, rows: Rows | None, cut: Cut) -> bool:
    if rows is None:
        return True
    has_dim = isinstance(leaf, torch.Tensor) and leaf.dim() > rows.dim
    return has_dim and leaf.shape[rows.dim] == rows.each * cut.part_of(cut.rank)[1]


def _number(leaf: torch.Tensor, share: Share, *, waits: bool) -> torch.Tensor:
    """A loss of the whole batch, whose gradient weighs as much as this rank's rows."""
    if not leaf.requires_grad or (share.scale == 1.0 and not waits):
        return leaf
    under_way.arrive()
    return of_all(marks.mark(Scaled.apply(under_way.plain(leaf), share.scale)))
