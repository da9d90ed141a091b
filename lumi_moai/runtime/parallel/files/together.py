"""Something that rank 0 does for all ranks: the others wait, and learn how it went."""

import functools
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALONE = [0]


def is_alone() -> bool:
    """Whether rank 0 is doing something by itself right now: what it calls must not ask the other ranks."""
    return _ALONE[0] > 0


def by_rank_0(call: Callable[[], Any], others: Callable[[], Any] | None = None) -> Any:
    """What *call* returns on rank 0, on every rank; the others run *others* meanwhile.

    What *call* raises on rank 0 is raised on every rank. All ranks must call this together.
    """
    import torch.distributed as dist

    from ... import group

    if dist.get_rank() == 0:
        with alone():
            value, error = _outcome(call)
        group.agree(_sendable(value, error))
        mine = None
    else:
        mine = _outcome(others)[1] if others is not None else None
        value, error = group.agree(None)
    if error is not None or mine is not None:
        raise error or mine  # type: ignore[misc]
    return value


def for_all(own: Callable[..., Any], is_on: Callable[[], bool]) -> Callable[..., Any]:
    """*own*, run by rank 0 for all once the ranks are one device."""

    @functools.wraps(own)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not is_on() or is_alone():
            return own(*args, **kwargs)
        return by_rank_0(functools.partial(own, *args, **kwargs))

    return call


@contextmanager
def alone() -> "Iterator[None]":
    """What this rank does in here it does by itself: its files are real, and the others need not come to the same."""
    _ALONE[0] += 1
    try:
        yield
    finally:
        _ALONE[0] -= 1


def _outcome(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return call(), None
    except Exception as error:  # BLE001, on purpose: raised again by every rank
        return None, error


def _sendable(value: Any, error: Exception | None) -> tuple[Any, Exception | None]:
    try:
        pickle.loads(pickle.dumps((value, error)))  # noqa: S301
    except Exception:  # BLE001, on purpose: some errors cannot be made again from what they store
        return None, None if error is None else RuntimeError(f"{type(error).__name__}: {error}")
    return value, error
