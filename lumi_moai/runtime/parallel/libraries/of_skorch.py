"""skorch: its steps set the model to evaluation when the batch is there already; here that is done before.

What it keeps of a training batch, its size and what a score is computed from, is that of the global batch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .around import around
from .whole import whole

if TYPE_CHECKING:
    from ..engine import Engine


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for skorch."""
    around("skorch.net", "NeuralNet.run_single_epoch", engine, _passing)
    around("skorch.net", "NeuralNet.forward_iter", engine, _predicting)
    around("skorch.net", "get_len", engine, _counting)
    for name in ("EpochScoring", "BatchScoring"):
        around("skorch.callbacks.scoring", f"{name}.on_batch_end", engine, _scoring)


def _passing(engine: "Engine", own: Callable[..., Any], net: Any, iterator: Any, training: bool, **kwargs: Any) -> Any:
    net._set_training(training)
    return own(net, iterator, training=training, **kwargs)


def _predicting(
    engine: "Engine", own: Callable[..., Any], net: Any, data: Any, training: bool = False, **kwargs: Any
) -> Any:
    net._set_training(training)
    return own(net, data, training=training, **kwargs)


def _counting(engine: "Engine", own: Callable[[Any], int], batch: Any) -> int:
    return engine.share.total if engine.share else own(batch)


def _scoring(
    engine: "Engine", own: Callable[..., None], score: Any, net: Any, batch: Any, training: bool, **kwargs: Any
) -> None:
    """A score of training batches, when a user asks for one, sees the rows of all ranks."""
    if training and score.on_train and engine.share:
        batch = whole(engine, batch, engine.share)
        kwargs["y_pred"] = whole(engine, kwargs["y_pred"], engine.share)
    own(score, net, batch=batch, training=training, **kwargs)
