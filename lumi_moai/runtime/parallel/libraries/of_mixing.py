"""Libraries that mix the rows of a batch with each other (timm, torchvision, kornia): each rank mixes all of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from .. import counts
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine

_MIXING = (
    ("timm.data.mixup", "Mixup.__call__"),
    ("torchvision.transforms.v2._augment", "_BaseMixUpCutMix.forward"),
    ("kornia.augmentation._2d.mix.base", "MixAugmentationBaseV2.forward"),
)


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for them."""
    for module, name in _MIXING:
        around(module, name, engine, _mixing)


def _mixing(engine: "Engine", own: Callable[..., Any], mixer: Any, *args: Any, **kwargs: Any) -> Any:
    """Which row meets which is drawn for all rows, alike on all ranks; each rank goes on with its own."""
    parts = [each for each in tree_leaves((args, kwargs)) if type(each) is counts.OfBatch and each.at == 0]
    if not parts:
        return own(mixer, *args, **kwargs)
    of_all = {id(part): counts.wholly(part) for part in parts}
    before = {key: each._version for key, each in of_all.items()}
    given, words = tree_map(lambda leaf: of_all.get(id(leaf), leaf), (args, kwargs))
    made = tree_map(lambda leaf: counts.own_rows(leaf, parts[0]), own(mixer, *given, **words))
    for part in parts:
        if of_all[id(part)]._version != before[id(part)]:  # a mixer that writes into the batch
            with torch._C.DisableTorchFunctionSubclass():
                part.copy_(counts.own_rows(of_all[id(part)], part))
    return made
