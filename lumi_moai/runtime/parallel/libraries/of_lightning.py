"""Lightning's Trainer, as `lightning` and as `pytorch_lightning`: one device, whose logged values are global."""

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import group
from ...late import after_import
from .. import counts
from ..ahead import News
from ..counts import users
from ..files import together
from ..selfcheck.body import Unfit
from ..share import Share
from . import whole
from .around import around
from .of_accelerate import refuse

if TYPE_CHECKING:
    from ..engine import Engine

_NAMES = (("lightning.pytorch", "lightning.fabric"), ("pytorch_lightning", "lightning_fabric"))
_RANK_ZERO = "lightning_utilities.core.rank_zero"
_Held = deque[News]
_AT_HAND: list[News] = []
"""Of the batches of a step, one of each loader, until the next are fetched."""
_SEEING = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer", "on_train_batch_start")
_GLOBAL: list[str] = []
"""What is being logged and is a number of the global batch."""


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for Lightning."""
    for trainer, fabric in _NAMES:
        connectors = f"{trainer}.trainer.connectors"
        result = f"{connectors}.logger_connector.result"
        checkpoint, fetchers, single = (
            f"{trainer}.callbacks.model_checkpoint", f"{trainer}.loops.fetchers", f"{trainer}.strategies.single_device"
        )  # fmt: skip
        for module, name, call in (
            (f"{connectors}.accelerator_connector", "_AcceleratorConnector.__init__", _connecting),
            (f"{connectors}.data_connector", "_DataConnector.prepare_data", _on_local_rank_0),
            (f"{trainer}.accelerators.cuda", "CUDAAccelerator.setup_device", _setting_up),
            (f"{trainer}.core.module", "LightningModule.log", _asking_to_log),
            (result, "_ResultCollection.log", _logging),
            (result, "_ResultCollection._extract_batch_size", _sizing),
            (checkpoint, "ModelCheckpoint.file_exists", _looking),
            (f"{trainer}.trainer.trainer", "Trainer.save_checkpoint", _saving),
            (f"{fabric}.loggers.csv_logs", "CSVLogger._get_next_version", _numbering),
            (f"{fabric}.loggers.tensorboard", "TensorBoardLogger._get_next_version", _numbering),
            (f"{fabric}.loggers.csv_logs", "_ExperimentWriter._rewrite_with_new_header", _saving),
            (f"{trainer}.loggers.tensorboard", "TensorBoardLogger._get_next_version", _numbering),
            (single, "SingleDeviceStrategy.broadcast", _broadcasting),
            (f"{trainer}.strategies.strategy", "Strategy.batch_to_device", _handing),
            (f"{trainer}.trainer.call", "_call_callback_hooks", _hooking),
            (f"{trainer}.trainer.call", "_call_lightning_module_hook", _hooking),
            (f"{trainer}.loops.fit_loop", "_FitLoop.run", _fitting),
            (f"{trainer}.callbacks.batch_size_finder", "BatchSizeFinder.__init__", _scaling),
            (f"{trainer}.loops.optimization.automatic", "_AutomaticOptimization.run", _optimizing),
            (f"{trainer}.loops.optimization.manual", "_ManualOptimization.run", _optimizing_by_hand),
            (fetchers, "_PrefetchDataFetcher.__iter__", _prefetching),
            (fetchers, "_PrefetchDataFetcher.__next__", _fetching),
            (fetchers, "_DataFetcher.__next__", _fetching_raw),
            (f"{fabric}.wrappers", "_FabricDataLoader.__iter__", _moving),
        ):
            around(module, name, engine, call)
        after_import(f"{fabric}.utilities.rank_zero", lambda: begin(engine()))


def begin(engine: "Engine | None") -> None:
    """Let every rank take itself for the one there is: what all ranks write alike is rank 0's (`files.writing`)."""
    module: Any = sys.modules.get(_RANK_ZERO)
    if engine is not None and module is not None:
        module.rank_zero_only.rank = 0


def _connecting(engine: "Engine", own: Callable[..., None], connector: Any, *args: Any, **kwargs: Any) -> None:
    devices, nodes = kwargs.get("devices", "auto"), kwargs.get("num_nodes", 1)
    if nodes != 1:
        raise refuse(f"Trainer(num_nodes={nodes})")
    if devices not in ("auto", -1, 1, "1", "-1", None) and not (isinstance(devices, list) and len(devices) == 1):
        raise refuse(f"Trainer(devices={devices!r})")
    strategy = kwargs.get("strategy", "auto")
    own(connector, *args, **kwargs)
    if connector.strategy.__class__.__name__ != "SingleDeviceStrategy":
        raise refuse(f"Trainer(strategy={strategy!r})")


def _setting_up(engine: "Engine", own: Callable[..., None], cuda: Any, device: torch.device) -> None:
    """Where the CPU stands in there is no device to set."""
    if device.type == "cuda":
        own(cuda, device)


def _asking_to_log(
    engine: "Engine", own: Callable[..., None], module: Any, name: str, value: Any, *args: Any, **kwargs: Any
) -> None:
    """Note whether *value* is a number of the global batch already, before Lightning makes a plain tensor of it."""
    if not _is_global(engine, value):
        own(module, name, value, *args, **kwargs)
        return
    _GLOBAL.append(name)
    try:
        own(module, name, value.whole if isinstance(value, counts.Rows) else value, *args, **kwargs)
    finally:
        _GLOBAL.pop()


def _is_global(engine: "Engine", value: Any) -> bool:
    if isinstance(value, (int, float)) and engine.share is not None:
        # What the script read or counted is of all rows; a length that it took from a list of its rows is this rank's.
        return whole.is_alike(torch.tensor(value), engine.share)
    return isinstance(value, (counts.OfAll, counts.Rows))


def _logging(
    engine: "Engine", own: Callable[..., None], results: Any, fx: str, name: str, value: Any, *args: Any, **kwargs: Any
) -> None:
    """A number of this rank's rows becomes that of the global batch, by the rule of `self.log(reduce_fx=...)`."""
    share = engine.share
    if share is not None and not _GLOBAL and isinstance(value, torch.Tensor) and value.dim() == 0:
        value = _reduced(engine, value, share, kwargs.get("reduce_fx", "mean"))
    own(results, fx, name, value, *args, **kwargs)


def _reduced(engine: "Engine", value: torch.Tensor, share: Any, reduce_fx: Any) -> torch.Tensor:
    rule = getattr(reduce_fx, "__name__", reduce_fx)
    if value.requires_grad or rule not in ("sum", "max", "min"):
        return whole.scalar(engine, value, share)
    values = whole.rows(engine, value.reshape(1), share)
    return getattr(values, rule)()


def _sizing(engine: "Engine", own: Callable[..., int], results: Any, metric: Any, size: int | None, meta: Any) -> int:
    """The rows by which the mean over an epoch weighs a batch: those of the global batch."""
    found = own(results, metric, size, meta)
    share = engine.share
    if isinstance(found, counts.Rows):
        return found.whole
    if share is None or not (meta.on_epoch and meta.is_mean_reduction):
        return found
    return int(group.total(torch.tensor(float(found if share.rows else 0))).item())


def _handing(engine: "Engine", own: Callable[..., Any], strategy: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
    """A batch is on the device now; lists of it are made anew on the way."""
    found = own(strategy, batch, *args, **kwargs)
    if engine.ahead.looks:
        return found
    if len(_AT_HAND) == 1:  # also where a hook of the script has made something else of it
        return _marked(engine, _AT_HAND[0], _AT_HAND[0].share, found)
    with suppress(ValueError):  # as many parts, unless a hook has made others of them
        return _of_each(lambda news, part: _marked(engine, news, news.share, part), batch, found)
    return found


def _of_each(change: Callable[[News, Any], Any], batch: Any, found: Any) -> Any:
    """*found*, made of *batch*, with a *change* of what each loader gave.

    Raises ValueError where it has other parts.
    """
    of = {id(news.batch): news for news in _AT_HAND}
    return tree_map(
        lambda part, now: change(of[id(part)], now) if id(part) in of else now,
        batch,
        found,
        is_leaf=lambda part: id(part) in of,
    )


def _moving(engine: "Engine", own: Callable[..., Iterator], loader: Any) -> Iterator:
    """Fabric's loader brings batches to the device, and makes their lists anew."""
    for batch in own(loader):
        share = engine.at_hand.fetched
        yield batch if share is None else counts.mark(batch, share, engine.time_first.places)


def _marked(engine: "Engine", news: News, share: Share | None, batch: Any) -> Any:
    """*batch*, made of the one that *news* tells of: the script counts the rows of all ranks, if it is to train on."""
    if share is None or news.loader is None:
        return batch
    return counts.mark(batch, share, engine.time_first.of(news.loader))


def _hooking(engine: "Engine", own: Callable[..., Any], trainer: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """A hook that takes batches of a loader looks at them; only steps, which are called otherwise, train."""
    if not name.startswith("on_"):
        return own(trainer, name, *args, **kwargs)
    with engine.ahead.hook():
        return own(trainer, name, *args, **kwargs)


def _on_local_rank_0(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    if engine.me.ranks.local_rank == 0:
        with together.alone():
            own(*args, **kwargs)
    dist.barrier()


def _looking(engine: "Engine", own: Callable[..., bool], saver: Any, path: Any, *args: Any, **kwargs: Any) -> bool:
    resume = engine.resume

    def look() -> bool:
        return own(saver, path, *args, **kwargs) and not (resume is not None and resume.is_left_over(path))

    return bool(_found(engine, look))


def _numbering(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    return int(_found(engine, lambda: own(*args, **kwargs)))


def _found(engine: "Engine", look: Callable[[], float]) -> float:
    """What rank 0 finds among its files, or found there before a restart: files of later steps are there by now."""
    resume = engine.resume
    return group.agree(look()) if resume is None else resume.value("a look at files", lambda: group.agree(look()))


def _saving(engine: "Engine", own: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """What a step that a restart repeats has saved is there."""
    if not engine.is_repeating:
        own(*args, **kwargs)


def _broadcasting(
    engine: "Engine", own: Callable[..., Any], strategy: Any, value: Any, *args: Any, **kwargs: Any
) -> Any:
    """Names of folders, and decisions by the clock, are those of rank 0."""
    return group.agree(value)


def _fitting(engine: "Engine", own: Callable[..., None], loop: Any) -> None:
    with engine.self_check.of_library(), engine.ahead.training():
        own(loop)


def _scaling(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    raise RequestError(
        "BatchSizeFinder looks for the batch that fills the memory of one device, and here a rank has some of its rows;"
        " leave it out, and give the loader the batch of one device"
    )


def _optimizing(
    engine: "Engine", own: Callable[..., Any], loop: Any, optimizer: Any, place: int, words: OrderedDict[str, Any]
) -> Any:
    """The first batch is computed twice more before, on few rows: the self-check."""

    def step(words: OrderedDict[str, Any]) -> None:
        found = loop._make_step_fn(words)()
        loop._make_backward_fn(optimizer)(found.closure_loss)

    _check(engine, loop, step, words)
    return own(loop, optimizer, place, words)


def _optimizing_by_hand(engine: "Engine", own: Callable[..., Any], loop: Any, words: OrderedDict[str, Any]) -> Any:
    """The same, up to the first backward of a `training_step` that steps the optimizers itself."""

    def step(words: OrderedDict[str, Any]) -> None:
        with _as_it_was(loop.trainer.optimizers), _without_steps(engine):
            loop.advance(words)

    _check(engine, loop, step, words)
    return own(loop, words)


def _check(
    engine: "Engine", loop: Any, step: Callable[[OrderedDict[str, Any]], None], words: OrderedDict[str, Any]
) -> None:
    check = engine.self_check
    if not check.is_due or engine.is_repeating:
        return
    if "batch" not in words:
        check.leave_out("training_step takes its batches from the loader itself (dataloader_iter)")
    elif len(_AT_HAND) != 1:
        check.leave_out("training_step gets batches of several loaders at once")
    elif check.check(
        lambda few: step(OrderedDict({**words, "batch": _marked(engine, _AT_HAND[0], engine.share, few)})),
        words["batch"],
        engine.share,
        [loop.trainer._results],
        is_shown=_is_shown(loop.trainer),
    ):
        engine.whole_batches.put_in_place(_AT_HAND[0], words["batch"])


def _is_shown(trainer: Any) -> bool:
    """Whether lines of the script have seen a batch ahead of its step."""
    owners = (trainer.lightning_module, trainer.datamodule, *trainer.callbacks)
    return any(users.is_by_user(getattr(owner, name, None)) for owner in owners for name in _SEEING)


@contextmanager
def _as_it_was(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Which weights of *optimizers* have gradients is afterwards what it was: `toggle_optimizer` changes that."""
    weights = [each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]
    before = [(each, each.requires_grad) for each in weights]
    try:
        yield
    finally:
        for each, has_gradient in before:
            each.requires_grad_(has_gradient)


@contextmanager
def _without_steps(engine: "Engine") -> Iterator[None]:
    """Within this an optimizer that is to step raises Unfit, behind its closure: that could not be taken back."""

    def refused(optimizer: Any, call: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        for closure in (*args, *kwargs.values()):
            closure()
        raise Unfit("before backward training_step takes a step (step)")

    engine.steppers.insert(0, refused)
    try:
        yield
    finally:
        engine.steppers.remove(refused)


def _prefetching(engine: "Engine", own: Callable[..., Any], fetcher: Any) -> Any:
    fetcher.held = deque[_Held]()
    with engine.ahead.training():  # a search for a learning rate gets the loaders ready in a hook
        return own(fetcher)


def _fetching_raw(engine: "Engine", own: Callable[..., Any], fetcher: Any) -> Any:
    """One batch of each loader, of which all the news waits until the step is at it."""
    held = fetcher.__dict__.get("held")
    if held is None:  # of a step that takes its batches itself
        return own(fetcher)
    fetched = deque[News]()
    try:
        with engine.ahead.held(fetched):
            return own(fetcher)
    finally:
        held.append(fetched)


def _fetching(engine: "Engine", own: Callable[..., Any], fetcher: Any) -> Any:
    fetcher.__dict__.setdefault("held", deque[_Held]())
    try:
        found = own(fetcher)
    except StopIteration:
        while fetcher.held:
            _told(engine, fetcher.held.popleft())
        raise
    _AT_HAND[:] = _told(engine, fetcher.held.popleft())
    for news in _AT_HAND:
        engine.whole_batches.put_in_place(news, news.batch)
    given = {id(news.batch): _marked(engine, news, news.share, news.batch) for news in _AT_HAND}
    found = _of_each(lambda news, _: given[id(news.batch)], found, found)
    _AT_HAND[:] = [replace(news, batch=given[id(news.batch)]) for news in _AT_HAND]
    return found


def _told(engine: "Engine", held: "_Held") -> list[News]:
    """The batches of which *held* tells, one of each loader."""
    told = []
    while (news := engine.ahead.tell_next(held)) is not None:
        told.append(news)
    return told
