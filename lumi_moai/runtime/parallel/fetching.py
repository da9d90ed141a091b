"""Whether a loader is at work for a batch to come: what a data set does meanwhile is for none at hand."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FETCHING: list[int] = []
"""The threads in which a loader fetches a batch or starts its workers, which know of it from then on."""


@contextmanager
def fetching() -> Iterator[None]:
    """Within this a loader is at work for the batch to come: what its data set does is for none at hand."""
    mine = threading.get_ident()
    _FETCHING.append(mine)
    try:
        yield
    finally:
        _FETCHING.remove(mine)


def is_fetching() -> bool:
    """Whether this thread, or this worker process, fetches a batch."""
    return bool(_FETCHING) and threading.get_ident() in _FETCHING
