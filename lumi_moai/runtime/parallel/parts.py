"""What a batch is made of: tensors, arrays and lists, in containers that may be nested."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import RequestError
from . import graphs

_SCALARS = (str, bytes, int, float)


def _is_row_list(batch: Any) -> bool:
    """Whether *batch* has one entry per row: a tensor, an array, a list of plain values, or a batch of graphs."""
    if graphs.are_graphs(batch):
        return True
    if isinstance(batch, (list, tuple)):
        return not hasattr(batch, "_fields") and all(isinstance(part, _SCALARS) for part in batch)
    return hasattr(batch, "shape") and len(batch.shape) > 0


def is_single(part: Any) -> bool:
    """Whether *part* is of the whole batch, and of no row: a word, a number, nothing at all."""
    return part is None or isinstance(part, _SCALARS) or getattr(part, "shape", None) == ()


def are_fields(things: Any) -> bool:
    """Whether a list has words or numbers beside other *things*: what rows have one each of is of one kind."""
    return 0 < sum(isinstance(each, _SCALARS) for each in things) < len(things)


def is_nested(batch: Any) -> bool:
    """Whether *batch* holds parts that may have rows, and is none itself."""
    if isinstance(batch, (list, tuple)):
        return any(not isinstance(part, (str, int, float)) for part in batch)
    return isinstance(batch, Mapping) or dataclasses.is_dataclass(batch)


def parts(batch: Any) -> Mapping[Any, Any]:
    """What the container *batch* holds, by key, field or place.

    Raises RequestError for a thing that is no container.
    """
    if isinstance(batch, Mapping):
        return batch
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if isinstance(batch, (list, tuple)):
        return dict(enumerate(batch))
    raise RequestError(f"a DataLoader gave a {type(batch).__name__}, whose rows cannot be shared out over ranks")


def leaves(batch: Any) -> Iterator[Any]:
    """The parts of *batch* that have its rows.

    Raises RequestError for a part without rows.
    """
    if graphs.are_stacked(batch):
        yield from (each.tensor for each in graphs.held(batch) if each.tensor.dim())
        return
    if _is_row_list(batch):
        yield batch
        return
    for part in parts(batch).values():
        if not is_single(part):
            yield from leaves(part)


def some_rows(batch: Any, start: int, end: int) -> Any:
    """Some rows of *batch*, which stays of its type."""
    if is_single(batch):
        return batch
    if graphs.are_graphs(batch) or graphs.are_stacked(batch):
        return graphs.some(batch, start, end)
    if _is_row_list(batch):
        return batch[start:end]
    return made_of(batch, {key: some_rows(part, start, end) for key, part in parts(batch).items()})


def made_of(like: Any, others: Mapping[Any, Any]) -> Any:
    """A container as *like* is, of *others*."""
    if isinstance(like, Mapping) or dataclasses.is_dataclass(like):
        made: Any = copy.copy(like)
        for key, part in others.items():
            if isinstance(like, Mapping):
                made[key] = part
            else:
                object.__setattr__(made, key, part)  # also of one that is frozen
        return made
    return type(like)(*others.values()) if hasattr(like, "_fields") else type(like)(others.values())
