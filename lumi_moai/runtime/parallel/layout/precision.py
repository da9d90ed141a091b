"""Computing in bfloat16 while weights, gradients' sums and optimizer states stay float32; compiled blocks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ....plan import Plan
from ... import accelerator


def compiled(lists: Sequence[Sequence[nn.Module]], plan: Plan) -> None:
    """Compile each block by itself, if *plan* says so: one graph serves all blocks of a kind."""
    for blocks in lists if plan.compile else ():
        for block in blocks:
            block.compile()


def in_bfloat16(root: nn.Module, call: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A call of a model with its matrix products in bfloat16; the results are float32, as the script expects."""
    with torch.autocast(accelerator.device().type, torch.bfloat16):
        output = call(*args, **kwargs)
    return tree_map(_widened, output)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value
