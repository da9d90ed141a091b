"""Lists of a batch that have an entry for each row: texts, names, dictionaries. Their length is a number of rows."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch

from .. import graphs
from ..parts import parts
from ..share import Share

_FOUND: deque[dict[int, tuple[Any, Share]]] = deque(maxlen=4)
"""Those of the last batches, by their identity; a script may fetch a batch before it uses the one before."""


def note(batch: Any, share: Share) -> None:
    """Remember the lists of *batch*, which was cut as *share* says."""
    _FOUND.append({id(each): (each, share) for each in _lists(batch, max(share.rows, 1))})


def share_of(thing: Any) -> Share | None:
    """How the batch was cut of which *thing* has an entry for each row; None for any other list."""
    found = (batch.get(id(thing)) for batch in _FOUND)
    return next((share for kept, share in filter(None, found) if kept is thing), None)


def _lists(batch: Any, rows: int) -> Iterator[Any]:
    if graphs.are_graphs(batch):
        yield from (each for each in graphs.lists(batch) if len(each) == rows)
    elif isinstance(batch, Mapping) or is_dataclass(batch):
        for each in parts(batch).values():
            yield from _lists(each, rows)
    elif isinstance(batch, (list, tuple)):
        if len(batch) == rows and not all(_has_rows(each, rows) for each in batch):
            yield batch
        else:  # the fields of a batch
            for each in batch:
                yield from _lists(each, rows)


def _has_rows(thing: Any, rows: int) -> bool:
    if isinstance(thing, (torch.Tensor, np.ndarray)):
        return thing.ndim > 0 and len(thing) == rows
    return isinstance(thing, (list, tuple)) and len(thing) == rows
