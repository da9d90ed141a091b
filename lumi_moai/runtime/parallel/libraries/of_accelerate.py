"""Hugging Face accelerate: an `Accelerator` on one device, whose loaders fetch one batch ahead."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map

from ....errors import RequestError
from .. import counts
from ..ahead import News
from . import whole
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine

_OWN_WAYS = ("deepspeed_plugin", "fsdp_plugin", "megatron_lm_plugin", "parallelism_config", "deepspeed_plugins")
_END = object()


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for accelerate."""
    for kind in ("DataLoaderShard", "DataLoaderDispatcher"):
        around("accelerate.data_loader", f"{kind}.__iter__", engine, _looking_ahead)
    around("accelerate.accelerator", "Accelerator.__init__", engine, _making)
    around("accelerate.accelerator", "Accelerator.gather", engine, _gathering)
    around("accelerate.accelerator", "Accelerator.gather_for_metrics", engine, _gathering_for_metrics)
    around("accelerate.accelerator", "Accelerator.reduce", engine, _reducing)
    around("accelerate.accelerator", "load_accelerator_state", engine, _restoring)


def refuse(given: str) -> RequestError:
    """The sentence for a script that asks *given*, a distributed mode of its library."""
    return RequestError(
        f"the script asks for {given}, but here all its ranks are one device; leave that out and choose a --layout, or"
        " submit the script with --parallel script, which leaves it alone"
    )


def _making(engine: "Engine", own: Callable[..., None], accelerator: Any, *args: Any, **kwargs: Any) -> None:
    for name in _OWN_WAYS:
        if kwargs.get(name) is not None:
            raise refuse(f"Accelerator({name}=...)")
    own(accelerator, *args, **kwargs)
    if accelerator.num_processes != 1 or accelerator.distributed_type != "NO":
        raise refuse(f"accelerate's mode {accelerator.distributed_type}")


def _looking_ahead(engine: "Engine", own: Callable[[Any], Iterator], loader: Any) -> Iterator:
    """The batches of *loader*, each announced when it is handed out and not when it is fetched."""
    batches, held = own(loader), deque[News]()
    skipped = getattr(loader, "skip_batches", 0)
    while True:
        with engine.ahead.held(held):
            batch = next(batches, _END)
        if batch is _END:
            break
        for _ in range(skipped):
            _drop_batch(held)
        skipped = 0
        news = engine.ahead.tell_next(held)
        engine.whole_batches.put_in_place(news, batch)
        if news is not None and news.share is not None and not engine.self_check.is_of_library:
            batch = counts.mark(batch, news.share, engine.time_first.places)  # the loop is the script's
        yield batch
    while held:
        engine.ahead.tell(held.popleft())


def _drop_batch(held: deque[News]) -> None:
    while held and not held.popleft().of_batch:
        pass


def _gathering(
    engine: "Engine", own: Callable[..., Any], accelerator: Any, values: Any, *args: Any, **kwargs: Any
) -> Any:
    """Of a training batch, what all ranks have; in evaluation each rank has everything already."""
    share = engine.share
    return own(accelerator, values, *args, **kwargs) if share is None else _gathered(engine, values, share)


def _gathering_for_metrics(
    engine: "Engine", own: Callable[..., Any], accelerator: Any, values: Any, *args: Any, **kwargs: Any
) -> Any:
    """The same; of one of several loaders at once, accelerate gives as many rows as the last batch of the other has."""
    share = engine.share
    if share is None:
        return own(accelerator, values, *args, **kwargs)
    found = _gathered(engine, values, share)
    if engine.self_check.is_of_library:
        return found
    return own(accelerator, tree_map(counts.of_all, found), *args, **kwargs)


def _gathered(engine: "Engine", values: Any, share: Any) -> Any:
    if isinstance(values, torch.Tensor):
        if (known := _known(engine, values, share)) is not None:
            return known
        return whole.rows(engine, values, share) if values.dim() else whole.each_rank(engine, values, share)
    if isinstance(values, dict):
        return {key: _gathered(engine, part, share) for key, part in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_gathered(engine, part, share) for part in values)
    raise RequestError(
        f"gather was given a {type(values).__name__} of a training batch; give it tensors, or gather in evaluation"
    )


def _known(engine: "Engine", tensor: torch.Tensor, share: Any) -> torch.Tensor | None:
    """*tensor* as one device has it, where it is known to be so or which rows of the batch it has; else None."""
    if type(tensor) is counts.OfAll:
        return tensor
    if type(tensor) is counts.OfBatch and tensor.dim():
        return counts.wholly(tensor).detach()
    if tensor.dim() == 0 and tensor.requires_grad:
        return engine.number(tensor)
    # What the script counted in its own loop is of all rows by now, and so the same on all ranks.
    is_counted = not engine.self_check.is_of_library and whole.is_alike(tensor, share)
    return tensor if is_counted else None


def _reducing(
    engine: "Engine", own: Callable[..., Any], accelerator: Any, values: Any, reduction: str = "sum", scale: float = 1.0
) -> Any:
    """The sum over the ranks of what a script counted in a training batch; a mean is that over rows."""
    share = engine.share
    if share is None or not isinstance(values, torch.Tensor):
        return own(accelerator, values, reduction, scale)
    if (known := _known(engine, values, share)) is not None:
        return known.clone()
    if reduction == "mean" and values.dim() == 0:
        return whole.scalar(engine, values.float(), share) * scale
    parts = whole.rows(engine, values[None], share)
    return (parts.sum(0) if reduction == "sum" else parts.mean(0)) * scale


def _restoring(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A stored state has one device's random numbers; the ranks' dropout must differ again."""
    found = own(*args, **kwargs)
    engine.has_own_chance = False
    return found
