"""Hugging Face Trainer: it counts the tokens of several batches ahead, and smooths labels by hand."""

import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from ....errors import RequestError
from ... import group
from .. import counts
from ..ahead import Ahead, News
from ..counts import users
from ..losses import of_all_ranks
from .around import around
from .of_accelerate import refuse

if TYPE_CHECKING:
    from ..engine import Engine


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for the Trainer."""
    around("transformers.training_args", "TrainingArguments.__post_init__", engine, _choosing)
    around("transformers.trainer", "Trainer._run_epoch", engine, _running)
    around("transformers.trainer", "Trainer._inner_training_loop", engine, _beginning)
    around("transformers.trainer", "Trainer.get_batch_samples", engine, _fetching)
    around("transformers.trainer", "Trainer.training_step", engine, _stepping)
    around("transformers.trainer", "Trainer.floating_point_ops", engine, _counting_flos)
    around("transformers.trainer", "Trainer.store_flos", engine, _storing_flos)
    around("transformers.trainer", "Trainer._load_rng_state", engine, _restoring)
    around("transformers.trainer", "Trainer._save_checkpoint", engine, _saving)
    around("transformers.trainer_pt_utils", "LabelSmoother.__call__", engine, _smoothing)


class Announced(list):
    """Batches that were fetched together, each announced when the Trainer comes to it."""

    def __init__(self, batches: list, held: deque[News], ahead: Ahead) -> None:
        super().__init__(batches)
        self.held = held
        self.ahead = ahead
        self.news = [news for news in held if news.of_batch]
        self.items: torch.Tensor | None = None
        """By which the Trainer divides the losses of all of them."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.ahead.tell_next(self.held)
            yield batch

    def total(self, trainer: Any, items: Any, device: Any) -> Any:
        """What the batches of all ranks have of *items*, which the Trainer counted in those of this rank."""
        shares = [news.share for news in self.news]
        if items is None or not any(share is not None for share in shares):
            return items
        # A stand-in row on a rank without a row of its own counts for nothing.
        real = [batch for batch, share in zip(list.__iter__(self), shares, strict=True) if share is None or share.rows]
        mine = trainer._get_num_items_in_batch(real, device) if real else 0
        found = group.total(torch.as_tensor(mine, dtype=torch.float64, device=device)).to(torch.as_tensor(items).dtype)
        self.items = found if self.items is None else self.items.copy_(found)
        return self.items

    def put_in_place(self, engine: "Engine") -> None:
        """They become as wide as the global batch, or whole batches' rows where ranks put these together."""
        for news, batch in zip(self.news, list.__iter__(self), strict=True):
            engine.time_first.look(news.loader, news.batch, news.share)
            engine.whole_batches.put_in_place(news, batch)


def _choosing(engine: "Engine", own: Callable[..., None], arguments: Any) -> None:
    for name in ("deepspeed", "fsdp", "parallelism_config"):
        if getattr(arguments, name, None):
            raise refuse(f"TrainingArguments({name}=...)")
    if getattr(arguments, "auto_find_batch_size", False):
        raise RequestError(
            "auto_find_batch_size would change the global batch when one rank runs out of memory; leave it out, and"
            " give per_device_train_batch_size the batch of one device"
        )
    own(arguments)


def _beginning(engine: "Engine", own: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    """The Trainer says `train()` after it has fetched the first batch; loaders ask before."""
    trainer.model.train()
    for name, at in _BY_SCRIPT:
        _follow(engine, trainer, name, at)
    with engine.self_check.of_library():
        return own(trainer, *args, **kwargs)


_BY_SCRIPT = (("compute_loss", 1), ("compute_loss_func", 0))
"""Where a script computes a loss of its own within the Trainer, and from which argument on it gets rows."""


_FETCHED: WeakKeyDictionary[Any, Announced] = WeakKeyDictionary()
"""The batches that each Trainer is at."""
_FOLLOWED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Which of them are followed already, of Trainers that train again."""


def _follow(engine: "Engine", trainer: Any, name: str, at: int) -> None:
    """What the script's own *name* counts and adds up by hand is of all rows, as in a loop of the script."""
    own: Any = getattr(trainer, name, None)
    if name in _FOLLOWED.get(trainer, ()) or not users.is_by_user(own):
        return
    _FOLLOWED.setdefault(trainer, set()).add(name)

    @functools.wraps(own)
    def followed(*args: Any, **kwargs: Any) -> Any:
        share = engine.at_hand.share  # in steps that a restart repeats as well
        if share is None:
            return own(*args, **kwargs)
        places = engine.time_first.places
        given = [*args[:at], *(counts.mark(each, share, places) for each in args[at:])]
        return own(*given, **{key: counts.mark(each, share, places) for key, each in kwargs.items()})

    setattr(trainer, name, followed)


def _running(engine: "Engine", own: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    """As above, after an evaluation at the end of an epoch."""
    trainer.model.train()
    return own(trainer, *args, **kwargs)


def _fetching(engine: "Engine", own: Callable[..., Any], trainer: Any, batches: Any, count: int, device: Any) -> Any:
    held = deque[News]()
    with engine.ahead.held(held):
        fetched, items = own(trainer, batches, count, device)
    found = _FETCHED[trainer] = Announced(fetched, held, engine.ahead)
    found.put_in_place(engine)
    return found, found.total(trainer, items, device)


def _stepping(
    engine: "Engine", own: Callable[..., Any], trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any
) -> Any:
    """The first batch is computed twice more before, on few rows: the self-check."""
    if engine.self_check.is_due and not engine.is_repeating:
        step = _without_log(trainer, functools.partial(own, trainer, model))
        is_shown = any(users.is_by_user(getattr(trainer, name)) for name in ("training_step", "get_batch_samples"))
        if engine.self_check.check(
            lambda few: step(few, *args, **kwargs), inputs, engine.share, [vars(trainer)], is_shown=is_shown
        ):
            fetched = _FETCHED[trainer]
            fetched.put_in_place(engine)
            fetched.total(trainer, fetched.items, trainer.args.device)
    return own(trainer, model, inputs, *args, **kwargs)


def _without_log(trainer: Any, step: Callable[..., Any]) -> Callable[..., Any]:
    """*step* without what a script's `compute_loss` logs, which callbacks would write down."""

    def quiet(*args: Any, **kwargs: Any) -> Any:
        vars(trainer)["log"] = lambda *_, **__: None  # put back with all that the trainer has
        return step(*args, **kwargs)

    return quiet


def _smoothing(
    engine: "Engine", own: Callable[..., Any], smoother: Any, output: Any, labels: Any, *args: Any, **kwargs: Any
) -> Any:
    """The label smoother's mean over tokens, over those of all ranks."""
    given = inspect.signature(own).bind(smoother, output, labels, *args, **kwargs)
    given.apply_defaults()
    words = given.arguments
    share = engine.loss_at_hand()
    if share is None:
        return own(**words)
    if "num_items_in_batch" not in words:
        raise RequestError("label smoothing over several ranks needs transformers 5.15 or newer; update it")
    items = words["num_items_in_batch"]
    total = own(**{**words, "num_items_in_batch": 1})
    if items is not None:
        return of_all_ranks(total / items, None, share)
    counted = labels[..., 1:] if words["shift_labels"] else labels
    return of_all_ranks(total, counted.ne(smoother.ignore_index).sum(), share)


def _counting_flos(engine: "Engine", own: Callable[..., float], trainer: Any, inputs: Any) -> float:
    """Those of a stand-in row do not count."""
    return own(trainer, inputs) if engine.share is None or engine.share.rows else 0.0


def _storing_flos(engine: "Engine", own: Callable[..., None], trainer: Any) -> None:
    trainer.current_flos = group.total(torch.tensor(float(trainer.current_flos), dtype=torch.float64)).item()
    own(trainer)


def _restoring(engine: "Engine", own: Callable[..., None], trainer: Any, checkpoint: Any) -> None:
    """A checkpoint has one device's random numbers; the ranks' dropout must differ again."""
    own(trainer, checkpoint)
    engine.has_own_chance = False
    engine.take_own_chance()


def _saving(engine: "Engine", own: Callable[..., None], trainer: Any, *args: Any, **kwargs: Any) -> None:
    """What a step that a restart repeats has saved is there, or was taken away later: also the best one until then."""
    resume, state = engine.resume, trainer.state
    if engine.is_repeating:
        trainer.store_flos()
    else:
        own(trainer, *args, **kwargs)
    if resume is not None:
        best = resume.value("best checkpoint", lambda: state.best_model_checkpoint or "", "t:")
        state.best_model_checkpoint = best or None
