"""Functions of libraries that measure a batch (torchmetrics, scikit-learn, timm, MONAI), given all rows."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_map

from ...late import after_import
from .. import counts
from ..counts import users
from . import whole
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine

_MODULES = ("torchmetrics.functional", "sklearn.metrics", "timm.utils.metrics")
_OF_ROWS = {
    *("preds", "target", "y_true", "y_pred", "y_score", "y_prob", "y_proba", "pred_decision", "sample_weight"),
    *("labels_true", "labels_pred"),
}
"""Their arguments that have an entry for each row; other lists (labels, thresholds) are options."""


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for them."""
    for name in _MODULES:
        after_import(name, functools.partial(_teach, name, engine))
    around("monai.metrics.metric", "CumulativeIterationMetric.__call__", engine, _adding)


def _adding(engine: "Engine", own: Callable[..., Any], metric: Any, *args: Any, **kwargs: Any) -> Any:
    """A metric that keeps what it measures of each batch."""
    if engine.share is None:
        return own(metric, *args, **kwargs)
    words: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    found = whole.measured(words, engine.share, words.keys())
    measures = own(metric, *(found[place] for place in range(len(args))), **{name: found[name] for name in kwargs})
    return tree_map(counts.of_all, measures)


def _teach(package: str, engine: Callable[[], "Engine | None"]) -> None:
    made: dict[FunctionType, Any] = {}
    for module in _modules(package):
        for name, own in list(vars(module).items()):
            if inspect.isfunction(own) and not name.startswith("_") and own.__module__.startswith(package):
                made.setdefault(own, _measuring(engine, own))
                setattr(module, name, made[own])


def _modules(package: str) -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            yield module


def _measuring(engine: Callable[[], "Engine | None"], own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, which the script calls with a part of a batch, or with what it made of one; libraries have all rows."""

    @functools.wraps(own)
    def measure(*args: Any, **kwargs: Any) -> Any:
        running = engine()
        share = running.share if running else None
        if share is None or not users.asks(sys._getframe(1)):
            return own(*args, **kwargs)
        try:
            given = inspect.signature(own).bind(*args, **kwargs)
        except TypeError:  # which the function says better
            return own(*args, **kwargs)
        given.arguments.update(whole.measured(given.arguments, share, _OF_ROWS))
        return tree_map(counts.of_all, own(*given.args, **given.kwargs))

    return measure
