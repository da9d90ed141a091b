"""PEFT: adapters of a model whose weights are in parts from their birth."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from ..files import saving
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for PEFT."""
    around("peft.tuners.tuners_utils", "_get_in_out_features", engine, _sizes)
    around("peft.utils.save_and_load", "get_peft_model_state_dict", engine, _adapters)


def _sizes(engine: "Engine", own: Callable[..., Any], module: nn.Module) -> Any:
    """The sizes of a whole layer; PEFT takes a weight in parts for one that is computed in parts."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return own(module)


def _adapters(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The adapters' weights, whole: they are few, and PEFT looks at their memory."""
    found = own(*args, **kwargs)
    return saving.full(found, keep=True) if engine.may_shard else found
