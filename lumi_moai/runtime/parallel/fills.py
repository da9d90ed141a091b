"""What a collate function fills rows up with, seen by comparing a batch of a few rows with one of more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch

from .time_first import Path, Places

Place = tuple[Path, int]
"""That of a tensor in a batch, and one of its dimensions."""
_VALUES = 16
"""Of a batch that are tried."""


class UnlikeError(Exception):
    """A batch of more rows is something else than rows that are filled up."""


@dataclass(frozen=True, kw_only=True)
class Fill:
    """One value, behind what a row has or ahead of it."""

    value: Any
    is_behind: bool
    is_certain: bool = field(default=True, compare=False)
    """Whether nothing else would have given the batch that was looked at."""


Known = Mapping[Place, Fill]


def of_batches(
    whole: Mapping[Path, torch.Tensor], mine: Mapping[Path, torch.Tensor], places: Places, own: slice | None
) -> dict[Place, frozenset[Fill]]:
    """What the tensors of *mine*, a part of the rows of *whole*, would have to be filled up with to be rows of it.

    *own* tells which of them they are where values are drawn for them, so that only what is filled in is alike. Raises
    UnlikeError where that does not make them rows of it.
    """
    if whole.keys() != mine.keys():
        raise UnlikeError("the collate function gives other parts for more rows")
    found: dict[Place, frozenset[Fill]] = {}
    for place, part in mine.items():
        dim = places.get(place) or 0
        for filled, may_be in _of_tensor(_rows_first(whole[place], dim), _rows_first(part, dim), own).items():
            found[place, _back(filled, dim)] = frozenset(may_be)
    return found


def likeliest(ranks: Sequence[frozenset[Fill]]) -> Fill:
    """What may be filled in as all *ranks* found it that saw any.

    Raises UnlikeError where there is nothing.
    """
    every = sorted(frozenset.intersection(*ranks), key=lambda each: not each.is_behind)
    if not every:
        raise UnlikeError("it does not always fill in the same")
    is_certain = len(every) == 1 and any(fill.is_certain for may_be in ranks for fill in may_be if fill == every[0])
    return replace(every[0], is_certain=is_certain)


def filled(tensor: torch.Tensor, place: Path, wanted: Mapping[Place, int], known: Known) -> torch.Tensor:
    """The *tensor* at *place* of a batch, filled up to the sizes that are *wanted*."""
    is_pinned = tensor.is_pinned()
    made = tensor
    for (where, dim), size in wanted.items():
        if where == place:
            made = _longer(made, dim, size, known[where, dim])
    return made.pin_memory() if is_pinned and made is not tensor else made


def is_same(mine: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are alike to the last bit."""
    return mine.shape == other.shape and list(_bits(mine)) == list(_bits(other))


def _longer(tensor: torch.Tensor, dim: int, size: int, fill: Fill) -> torch.Tensor:
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    more = tensor.new_full(shape, fill.value)
    return torch.cat([tensor, more] if fill.is_behind else [more, tensor], dim)


def _of_tensor(whole: torch.Tensor, mine: torch.Tensor, own: slice | None) -> dict[int, set[Fill]]:
    """What may be filled in, by the dimension; nothing for a tensor that is as wide."""
    dims = [dim for dim in range(1, mine.dim()) if mine.shape[dim] != whole.shape[dim]]
    if mine.dim() != whole.dim() or any(mine.shape[dim] > whole.shape[dim] for dim in dims):
        raise UnlikeError("the collate function makes more rows narrower")
    found: dict[int, set[Fill]] = {dim: set() for dim in dims}
    for sides in product((True, False), repeat=len(dims)):
        for value in _corners(whole if own is None else whole[own], dims, sides):
            made = dict(zip(dims, (Fill(value=value, is_behind=side) for side in sides), strict=True))
            if _explains(whole, mine, made, own):
                certain = not _may_repeat(mine, made)
                for dim, fill in ((dim, replace(fill, is_certain=certain)) for dim, fill in made.items()):
                    found[dim].add(fill)
    is_explained = all(found.values()) if dims else _explains(whole, mine, {}, own)
    if not is_explained:
        raise UnlikeError("the collate function does more to a longer batch than to fill its rows up with one value")
    return found


def _explains(whole: torch.Tensor, mine: torch.Tensor, fills: Mapping[int, Fill], own: slice | None) -> bool:
    if own is None:
        made = mine
        for dim, fill in fills.items():
            made = _longer(made, dim, whole.shape[dim], fill)
        return set(_bits(made)) <= set(_bits(whole))  # in any order: some collate functions sort
    kept = whole[own]
    for dim, fill in fills.items():
        start = mine.shape[dim] if fill.is_behind else 0
        added = kept.narrow(dim, start, whole.shape[dim] - mine.shape[dim])
        if not bool((added == fill.value).all()):
            return False
    return True


def _may_repeat(mine: torch.Tensor, made: Mapping[int, Fill]) -> bool:
    """Whether each row ends, or begins, with the value that is filled in: that may be what is filled in."""
    return any(
        bool((mine.narrow(dim, mine.shape[dim] - 1 if fill.is_behind else 0, 1) == fill.value).all())
        for dim, fill in made.items()
        if mine.shape[dim]
    )


def _corners(whole: torch.Tensor, dims: list[int], sides: tuple[bool, ...]) -> list[Any]:
    """Values that stand where rows are filled up at these *sides*."""
    if not dims or not whole.numel():
        return []
    for dim, is_behind in zip(dims, sides, strict=True):
        whole = whole.narrow(dim, whole.shape[dim] - 1 if is_behind else 0, 1)
    return list(dict.fromkeys(whole.reshape(-1).tolist()))[:_VALUES]


def _rows_first(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return tensor.transpose(0, dim) if dim else tensor


def _back(dim: int, rows: int) -> int:
    """Where dimension *dim* is once rows are again in dimension *rows*."""
    return 0 if dim == rows else dim


def _bits(tensor: torch.Tensor) -> Iterator[bytes]:
    """Of each row."""
    plain = tensor.detach().cpu().contiguous()
    if not plain.dim():
        plain = plain.reshape(1)
    flat = plain.reshape(len(plain), -1)
    if not flat.numel():
        yield from (b"" for _ in flat)
        return
    for row in flat.view(torch.uint8) if flat.dtype != torch.bool else flat.to(torch.uint8):
        yield row.numpy().tobytes()
