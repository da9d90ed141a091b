"""Which ghosts have rows of a batch: the script counts them in steps that it repeats as in those that it computes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from ..counts import PICKED, Rows, become, logged, name_of, picked_rows
from ..counts.of_graphs import HELD_ASIDE
from ..counts.ranged import OfWhole
from ..counts.size import Shape
from ..share import Share

_SIZES = ("size", "shape", "numel", "len")
_Place = tuple[Share, int]
"""How the batch was cut, and whether the first dimension has all rows or some that each rank has picked."""


class Rowed:
    """The ghosts that do, each as long as it lives."""

    def __init__(self, value_of: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        """*value_of* tells what a ghost was given by the checkpoint."""
        self._value_of = value_of
        self._places = WeakTensorKeyDictionary()

    def note(self, result: Any, given: Any, share: Share | None = None) -> None:
        """Ghosts in *result* were made of what was *given*, amid a batch that was cut as *share* says, if any is."""
        sources = list(self._sources(given))
        share = share or next((place[0] for _, place in sources), None)
        if share is None:
            return
        lengths = {**dict(reversed(sources)), max(share.rows, 1): (share, 0)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor) and leaf.dim() and leaf.shape[0] in lengths:
                self._places[leaf] = lengths[leaf.shape[0]]

    def _sources(self, given: Any) -> Iterator[tuple[int, _Place]]:
        """The length and the place of each tensor with rows."""
        for leaf in tree_leaves(given):
            if isinstance(leaf, FakeTensor) and leaf in self._places:
                yield leaf.shape[0], self._places[leaf]
            elif isinstance(leaf, torch.Tensor) and _has_rows_in_front(leaf):
                yield leaf.shape[0], (leaf.share, leaf.at)

    def size(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What *func* tells of a ghost's size, with rows counted over all ranks; None if it tells another thing."""
        name = name_of(func)
        if name not in _SIZES or not args or not isinstance(args[0], FakeTensor) or args[0] not in self._places:
            return None
        share, at = self._places[args[0]]
        first, *others = args[0].size()
        mine = max(share.rows, 1)
        rows = picked_rows(first, share) if at == PICKED else Rows.of(first, first // mine * share.total, share)
        if name == "numel":
            return rows * math.prod(others)
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0 if name == "len" else None)
        return Shape([rows, *others]) if dim is None else [rows, *others][dim]

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether *tensor* is one of them."""
        return isinstance(tensor, FakeTensor) and tensor in self._places

    def by_row(self, func: Any, args: tuple) -> Any:
        """Rows that *func* takes of a ghost one by one where the script means those of all ranks, else None."""
        name = name_of(func)
        is_each = name == "unbind" and args[1:] in ((), (0,))
        if not (is_each or _is_by_place(name, args)) or not self.has(args[0]):
            return None
        share, at = self._places[args[0]]
        is_behind = bool(share.went_back) and logged.in_loop() is not None
        if share.ranks == 1 or (is_each and not is_behind and not logged.is_for_log()):
            return None
        first, *others = args[0].size()
        mine = max(share.rows, 1)
        number = picked_rows(first, share).whole if at == PICKED else first // mine * share.total
        every = args[0].new_empty((int(number), *others))
        return every.unbind() if is_each else every[args[1]]

    def with_values(self, arguments: Any) -> Any:
        """*arguments* with what the checkpoint held of ghosts, which has the rows of the batch as well."""
        return tree_map_only(FakeTensor, self._with_value, arguments)

    def _with_value(self, ghost: torch.Tensor) -> torch.Tensor:
        value = self._value_of(ghost)
        if value is not None and type(value) is torch.Tensor and ghost in self._places and value.shape == ghost.shape:
            become(value, *self._places[ghost])
        return ghost if value is None else value


def _is_by_place(name: str, args: tuple) -> bool:
    """Whether a row is asked for by its place among all, `p[i]`."""
    if name != "getitem":
        return False
    first = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
    return type(first) is OfWhole


def _has_rows_in_front(tensor: torch.Tensor) -> bool:
    # By its attributes: while a model computes, a part of the batch is a plain tensor.
    is_in_front = getattr(tensor, "at", None) in (0, PICKED) and getattr(tensor, "graph", "") not in HELD_ASIDE
    return is_in_front and tensor.dim() > 0
