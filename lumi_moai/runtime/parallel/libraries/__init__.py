"""Libraries that train: here they believe that there is one device, and the functions of torch do the rest.

Each of them would read the variables of the rank and turn into a distributed mode of its own, with a batch on every
rank. From the script's one line on they find nothing to read (`environment`); what they compute by hand over a batch
becomes what it is over the global one, and what they fetch ahead is announced when it is used.

    around           a function of a library, replaced once the library is imported
    environment      what a library looks at to learn that it is one of several
    whole            values of the ranks, put together as one device would have them
    of_accelerate    Hugging Face accelerate
    of_transformers  Hugging Face Trainer
    of_trl           TRL's SFTTrainer
    of_peft          PEFT's adapters
    of_lightning     Lightning, under both its names
    of_torchmetrics  torchmetrics
    of_ignite        Ignite
    of_skorch        skorch
    of_metrics       functions that measure a batch
    of_mixing        mixup and its kin
    of_geometric     torch_geometric's batches of graphs
    of_wandb         Weights & Biases
    showing          torchvision's pictures and tensorboard's
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import (
    environment,
    of_accelerate,
    of_geometric,
    of_ignite,
    of_lightning,
    of_metrics,
    of_mixing,
    of_peft,
    of_skorch,
    of_torchmetrics,
    of_transformers,
    of_trl,
    of_wandb,
    showing,
)

if TYPE_CHECKING:
    from ..engine import Engine

EngineOf = Callable[[], "Engine | None"]


def install(engine: EngineOf) -> None:
    """Get ready for whatever library the script imports; *engine* gives the running engine, or None."""
    environment.install(engine)
    for library in (
        of_accelerate,
        of_transformers,
        of_trl,
        of_peft,
        of_ignite,
        of_skorch,
        of_lightning,
        of_torchmetrics,
        of_metrics,
        of_mixing,
        of_geometric,
        of_wandb,
        showing,
    ):
        library.install(engine)


def begin(engine: "Engine") -> None:
    """The ranks are one device from now on."""
    environment.hide()
    of_lightning.begin(engine)
