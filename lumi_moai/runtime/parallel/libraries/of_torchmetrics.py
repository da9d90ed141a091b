"""torchmetrics: a metric of a training batch sees the rows of all ranks."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

from .around import around
from .whole import measured, whole

if TYPE_CHECKING:
    from ..engine import Engine


_OF_LIGHTNING = "_ResultMetric"
"""What holds a value that `self.log` was given, which is of all rows already (`of_lightning`)."""


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for torchmetrics."""
    # A metric wraps its own update when it is made, which may be before the script's one line.
    around("torchmetrics.metric", "Metric._wrap_update", lambda: engine, _wrapping)


def _wrapping(engine: Callable[[], "Engine | None"], own: Callable[..., Any], metric: Any, update: Any) -> Any:
    inner = own(metric, update)

    @wraps(update)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        running = engine()
        share = running.share if running else None
        if running is None or share is None or type(metric).__name__ == _OF_LIGHTNING:
            return inner(*args, **kwargs)
        words: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        with torch.set_grad_enabled(metric._enable_grad and torch.is_grad_enabled()):
            found = measured(words, share, words.keys())
        plain = [name for name, each in found.items() if each is words[name] and not isinstance(each, list)]
        found.update({name: whole(running, found[name], share) for name in plain})
        return inner(*(found[place] for place in range(len(args))), **{name: found[name] for name in kwargs})

    return wrapped
