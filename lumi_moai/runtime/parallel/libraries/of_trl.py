"""TRL's SFTTrainer, which adds up the loss of its tokens by hand, and trainers that draw their own answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ....errors import RequestError
from ... import group
from ..losses import of_all_ranks
from ..marks import is_marked
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for the SFTTrainer, and refuse the others."""
    around("trl.trainer.sft_trainer", "SFTTrainer.compute_loss", engine, _computing)
    for name in ("GRPO", "RLOO"):
        around(f"trl.trainer.{name.lower()}_trainer", f"{name}Trainer.compute_loss", engine, _refusing)


def _refusing(_engine: "Engine", own: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    if group.data_ranks() > 1:
        raise RequestError(
            f"{type(trainer).__name__} draws answers and divides its loss by each rank's groups of them, which is not"
            " one device's loss; train with it on one device, or with --parallel script"
        )
    return own(trainer, *args, **kwargs)


def _computing(
    engine: "Engine",
    own: Callable[..., Any],
    trainer: Any,
    model: Any,
    inputs: Any,
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
) -> Any:
    """The sum over this rank's tokens, divided by the number of all ranks' tokens, becomes the sum over all ranks'."""
    share = engine.loss_at_hand()
    if share is not None and getattr(trainer, "aux_loss_enabled", False):
        raise RequestError(
            "SFTTrainer adds a router loss of each rank's rows to the mean over tokens, and the two weigh differently"
            " on several ranks; set output_router_logits=False in the model's config, or train on one device"
        )
    found = own(trainer, model, inputs, return_outputs, num_items_in_batch)
    by_hand = trainer.compute_loss_func is None and getattr(trainer, "label_smoother", None) is None
    if share is None or not by_hand:
        return found
    loss, *rest = found if return_outputs else (found,)
    if not is_marked(loss):
        if num_items_in_batch is None:
            raise RequestError("SFTTrainer did not count the tokens of a batch; give its dataset a column labels")
        loss = of_all_ranks(loss, None, share)
    return (loss, *rest) if return_outputs else loss
