"""torchmetrics: a metric of a training batch sees the rows of all ranks."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from .around import around
from .whole import whole

if TYPE_CHECKING:
    from ..engine import Engine


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
        if running is None or share is None:
            return inner(*args, **kwargs)
        return inner(*whole(running, args, share), **whole(running, kwargs, share))

    return wrapped
