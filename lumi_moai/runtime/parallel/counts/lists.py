"""Lists of a batch that have an entry for each row: texts, names, dictionaries. Their length is a number of rows."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from .. import graphs
from ..parts import are_fields, parts
from ..share import Share
from . import entries

_FOUND: deque[dict[int, tuple[Any, Share]]] = deque(maxlen=4)
"""Those of the last batches, by their identity; a script may fetch a batch before it uses the one before."""
_OF: WeakValueDictionary[int, Share] = WeakValueDictionary()
"""How the batch of a list was cut, by the list's identity, as long as the script has anything of that batch."""
_COMPARED = 64


def note(batch: Any, share: Share, entries: Sequence[Any] = ()) -> None:
    """Remember the lists of *batch*, which was cut as *share* says, and *entries*, some whose entries are rows."""
    share.lists.extend((*_lists(batch, max(share.rows, 1)), *entries))  # whose identity is theirs alone while they live
    _FOUND.append({id(each): (each, share) for each in share.lists})
    _OF.update((id(each), share) for each in share.lists)


def share_of_entries(things: Any) -> Share | None:
    """How the batch was cut whose rows the list *things* has, one for each, in a list of its own even."""
    share = share_of(things)
    if share is not None or type(things) not in entries.KINDS or not things:
        return share
    for kept, share in (pair for batch in reversed(_FOUND) for pair in batch.values()):
        if len(kept) == len(things) and any(all(map(_is_same, each, things)) for each in _columns(kept)):
            return share
    return None


def _columns(kept: Any) -> Iterator[Sequence[Any]]:
    """The entries of *kept*, and of entries with several things each of these."""
    yield kept
    if all(isinstance(each, (Mapping, list, tuple)) for each in kept):
        keys = set.intersection(*(set(parts(each)) for each in kept))
        yield from ([parts(each)[key] for each in kept] for key in keys)


def _is_same(kept: Any, thing: Any) -> bool:
    """Whether *thing* is *kept*, on another device perhaps; some of its numbers tell, as no other tensor has them."""
    if kept is thing:
        return True
    if not (type(kept) is type(thing) is torch.Tensor) or kept.numel() < 2 or kept.shape != thing.shape:
        return False
    some, others = (each.detach().reshape(-1)[:_COMPARED] for each in (kept, thing))
    return kept.dtype == thing.dtype and torch.equal(some.cpu(), others.cpu())


def share_of(thing: Any) -> Share | None:
    """How the batch was cut of which *thing* has an entry for each row; None for any other list."""
    share = _OF.get(id(thing))
    return share if share is not None and any(each is thing for each in share.lists) else None


def _lists(batch: Any, rows: int) -> Iterator[Any]:
    if graphs.are_graphs(batch):
        yield from (each for each in graphs.lists(batch) if len(each) == rows)
    elif isinstance(batch, Mapping) or is_dataclass(batch):
        for each in parts(batch).values():
            yield from _lists(each, rows)
    elif isinstance(batch, (list, tuple)):
        if len(batch) == rows and not are_fields(batch) and not all(_has_rows(each, rows) for each in batch):
            yield batch
        else:  # the fields of a batch
            for each in batch:
                yield from _lists(each, rows)


def _has_rows(thing: Any, rows: int) -> bool:
    if isinstance(thing, (torch.Tensor, np.ndarray)):
        return thing.ndim > 0 and len(thing) == rows
    return isinstance(thing, (list, tuple)) and len(thing) == rows
