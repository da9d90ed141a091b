"""Ignite: an engine calls a step of the script for each batch, and metrics look at what the step returns.

An evaluation says so in its step, when the batch is there already. Here it is known before, so that it sees all data.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any

from .around import around
from .whole import whole

if TYPE_CHECKING:
    from ..engine import Engine

_EVALUATES = {"eval", "no_grad", "inference_mode"}


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for Ignite."""
    around("ignite.engine.engine", "Engine.run", engine, _running)
    around("ignite.metrics.metric", "Metric.__init__", lambda: engine, _measuring)  # perhaps before the script's line


def _running(engine: "Engine", own: Callable[..., Any], runner: Any, *args: Any, **kwargs: Any) -> Any:
    """An engine of Ignite trains, or its step says that it does not."""
    code = getattr(runner._process_function, "__code__", None)
    names = set(code.co_names) if code else set()
    with engine.ahead.hook() if names & _EVALUATES and "backward" not in names else nullcontext():
        return own(runner, *args, **kwargs)


def _measuring(
    engine: Callable[[], "Engine | None"], own: Callable[..., None], metric: Any, *args: Any, **kwargs: Any
) -> None:
    """A metric of a training batch sees the rows of all ranks."""
    own(metric, *args, **kwargs)
    transform = metric._output_transform

    @wraps(transform)
    def transformed(output: Any) -> Any:
        found, running = transform(output), engine()
        share = running.share if running else None
        return found if running is None or share is None else whole(running, found, share)

    metric._output_transform = transformed
