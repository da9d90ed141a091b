"""What an optimizer calls for a loss and gradients, as often as it likes: L-BFGS, SAM, every step of Lightning's."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from .journal import Journal

Closure = Callable[[], Any]
_CALL = "closure of optimizer"


def given(args: tuple, kwargs: dict[str, Any]) -> Closure | None:
    """The closure among the arguments of a step."""
    return args[0] if args else kwargs.get("closure")


def noting(
    closure: Closure, optimizer: str, journal: Journal, reading: Callable[[], AbstractContextManager]
) -> Closure:
    """*closure* for *optimizer*, whose calls are noted in *journal*; within *reading*() so is what it reads."""

    def noted() -> Any:
        journal.note(_CALL, optimizer)
        with reading():
            return closure()

    return noted


@torch.enable_grad()
def repeat(closure: Closure, optimizer: str, journal: Journal) -> Any:
    """What *closure* gave first, called as often as *journal* says that *optimizer* did."""
    results = []
    while (event := journal.peek()) is not None and (event.what, event.where) == (_CALL, optimizer):
        journal.take(_CALL, optimizer)
        results.append(closure())
    return results[0] if results else None
