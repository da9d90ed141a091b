"""What the script holds at a step besides models and optimizers, for the checkpoint of that step."""

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from .. import roots
from ..counts import KINDS
from ..undivided import arrived
from . import batch_rows, reads, state, survivors

if TYPE_CHECKING:
    from ..engine import Engine

_SMALL = 65536


class Held:
    """The tensors that are found from the script's frames, and what the step at hand gives back."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.returned: Any = None
        """By the optimizer whose step it is."""

    def models(self) -> list[nn.Module]:
        """The models of the script."""
        return [root for root in roots.find(self.engine.seen.modules()) if isinstance(root, roots.Adopted)]

    def found(self) -> dict[str, torch.Tensor]:
        """The tensors, by the way to each."""
        known = {id(tensor) for tensor in self.engine.seen.registered() if isinstance(tensor, nn.Parameter)}
        models = self.models()
        covered = {id(tensor) for tensor in state.weights(models).values()}
        found = survivors.find(reads.is_scripts, covered if models else known)
        return {**found, "returned": self.returned} if isinstance(self.returned, torch.Tensor) else found

    def stored(
        self, weights: dict[str, torch.Tensor], group: Any, *, gradients_stay: bool
    ) -> tuple[dict[str, torch.Tensor], bool]:
        """Those that a restart needs: small ones, and those shaped as one of the *weights*.

        With them whether some rank says *gradients_stay*.
        """
        shapes = {tuple(tensor.shape) for tensor in weights.values()}
        mine = {
            name: tensor
            for name, tensor in arrived(self.found()).items()
            if (type(tensor) in (*KINDS, nn.Parameter) or isinstance(tensor, DTensor))
            and (tensor.numel() <= _SMALL or tuple(tensor.shape) in shapes)
        }
        named: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(named, ([*mine], gradients_stay), group=group)
        common = [name for name in named[0][0] if all(name in names for names, _ in named)]
        # Rank 0's alone is stored: a number of the batch is the global one, for which all ranks are needed.
        rows = batch_rows.together(mine, common, self.engine.share, self.engine.settle().data_rank, group)
        found = {f"script.{name}": self._global(mine[name]) if name not in rows else rows[name] for name in common}
        kept = {name: each for name, each in found.items() if self.engine.rank == 0 or isinstance(each, DTensor)}
        return kept, any(stay for _, stay in named)

    def _global(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad and tensor.dim() == 0 and not tensor.is_leaf:
            return self.engine.number(tensor)
        return tensor

    def own_rows(self, stored: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        """Of *stored* what this rank has in the place of *held*."""
        return batch_rows.own(stored, held, self.engine.share, self.engine.settle().data_rank)


def form(tensor: torch.Tensor) -> tuple[str, list[int]]:
    """Kind and shape of *tensor*."""
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
