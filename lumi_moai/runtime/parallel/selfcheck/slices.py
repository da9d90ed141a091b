"""A small batch that all ranks have, and each rank's part of it."""

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch

from ... import group
from .loop import CannotBeChecked

_ROWS_A_RANK = 4


def small(batch: Any, ranks: int) -> Any:
    """The first rows of rank 0's *batch*, on every rank.

    Raises CannotBeChecked when its rows cannot be told.
    """
    lengths = {len(part) for part in _parts(batch)}
    if len(lengths) != 1:
        lengths = {0}
    least = min(group.everyones(lengths.pop()))
    if least < 1:
        raise CannotBeChecked("the rows of its batch cannot be told")
    mine = group.agree(_moved(rows(batch, 0, _ROWS_A_RANK * ranks), torch.device("cpu")))
    return _like(mine, batch)


def count(batch: Any) -> int:
    """The rows of *batch*."""
    return len(next(_parts(batch)))


def rows(batch: Any, start: int, end: int) -> Any:
    """The rows of *batch* from *start* to before *end*."""
    return _each(batch, lambda part: part[start:end])


def _moved(batch: Any, device: torch.device) -> Any:
    return _each(batch, lambda part: part.to(device) if torch.is_tensor(part) else part)


def _like(batch: Any, other: Any) -> Any:
    devices = [part.device for part in _parts(other) if torch.is_tensor(part)]
    return _moved(batch, devices[0]) if devices else batch


def _is_branch(batch: Any) -> bool:
    return isinstance(batch, (list, tuple)) and any(
        torch.is_tensor(part) or isinstance(part, Mapping) for part in batch
    )


def _each(batch: Any, change: Any) -> Any:
    if isinstance(batch, MutableMapping):
        changed = copy.copy(batch)  # of the script's own class
        for key, part in batch.items():
            changed[key] = _each(part, change)
        return changed
    if _is_branch(batch):
        parts = [_each(part, change) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return change(batch) if torch.is_tensor(batch) or isinstance(batch, (list, tuple)) else batch


def _parts(batch: Any) -> Iterator[Any]:
    if isinstance(batch, Mapping):
        for part in batch.values():
            yield from _parts(part)
    elif _is_branch(batch):
        for part in batch:
            yield from _parts(part)
    elif (torch.is_tensor(batch) and batch.dim() > 0) or isinstance(batch, (list, tuple)):
        yield batch
