"""Pictures and histograms of a batch show the rows of all ranks: torchvision's grids, tensorboard's writer, wandb's."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import counts
from ..undivided import arrived
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine

_SHOWING = {
    "torchvision.utils": ("make_grid", "save_image"),
    "torch.utils.tensorboard.writer": tuple(
        f"SummaryWriter.add_{what}" for what in ("image", "images", "histogram", "embedding", "video", "pr_curve")
    ),
    "wandb.sdk.data_types.histogram": ("Histogram.__init__",),
    "wandb.sdk.data_types.image": ("Image.__init__",),
    "wandb.sdk.data_types.video": ("Video.__init__",),
}


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for them."""
    for module, names in _SHOWING.items():
        for name in names:
            around(module, name, engine, _whole)


def _whole(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if engine.is_repeating:
        return own(*args, **kwargs)
    args, kwargs = counts.whole(arrived((args, kwargs)))
    return own(*args, **kwargs)
