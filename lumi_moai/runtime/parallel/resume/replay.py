"""The steps that a restarted script repeats without computing them."""

import gc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.overrides import _get_current_function_mode

from ....errors import RequestError
from ..share import Share
from . import files, reads, sharded
from .ghosts import Ghosts, Twins, is_ghost, set_value
from .imagine import Imagination
from .journal import Journal
from .state import bare

Cut = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Replay:
    """From the script's start to the step of the checkpoint at *path*."""

    def __init__(self, path: Path, facts: Mapping[str, Any], journal: Journal) -> None:
        self.path = path
        self.facts = facts
        self.step: int = facts["step"]
        self.journal = journal
        self.ghosts = Ghosts()
        self.imagination = Imagination(self.ghosts)
        self.twins = Twins(self.ghosts, reads.OURS)
        self._is_entered = False
        self._undo = files.guard(lambda: self.ghosts.is_over)

    def begin_training(self, reals: Iterable[torch.Tensor]) -> None:
        """The models are laid out; *reals* are their weights, whose values are not those of the steps to come."""
        self.twins.replace(reals)
        if not self._is_entered:
            self._is_entered = True
            self.twins.__enter__()

    def check_models(self, models: Mapping[str, list[int]], stored: Mapping[str, list[int]]) -> None:
        """Compare the shapes of weights with those of the run that is repeated.

        Raises RequestError for another model.
        """
        for name in sorted(set(stored) | set(models)):
            if stored.get(name) != models.get(name):
                raise RequestError(
                    f"the checkpoint {self.path} is of another model ({name.partition('.')[2]} is"
                    f" {stored.get(name, 'missing')} there and {models.get(name, 'missing')} here); start what made it,"
                    " or start anew with --checkpoint off"
                )

    def backward(self, parameters: Iterable[torch.Tensor]) -> None:
        """The parameters get gradients without values."""
        for parameter in parameters:
            twin = self.twins.twins.get(id(parameter))
            if twin is not None and parameter.requires_grad and twin[1].grad is None:
                twin[1].grad = self.ghosts.plain(parameter)

    def call(self, root: nn.Module, args: tuple, kwargs: dict[str, Any], share: Share | None) -> Any:
        """What the model *root* would return, as ghosts, amid a batch that was cut as *share* says."""
        found = self.imagination.call(root, args, kwargs)
        self.twins.rowed.note(found, (args, kwargs), share)
        return found

    def end(self) -> None:
        """From now on tensors are real; until `leave`, those that the script still holds know their rows."""
        self.ghosts.is_over = True
        self._undo()

    def leave(self) -> None:
        """The step of the checkpoint is over."""
        self.twins.twins.clear()
        if _get_current_function_mode() is self.twins:
            self.twins.__exit__(None, None, None)

    def give_values(self, found: Mapping[str, torch.Tensor], group: Any, cut: Cut) -> None:
        """Give the ghosts among *found*, by the ways to them, the values that the checkpoint holds.

        *cut*, of a value and who gets it, takes this rank's rows of what was made of a batch.

        Raises RequestError for a tensor that was written into and is not in the checkpoint.
        """
        wanted = {
            f"script.{way}": tensor
            for way, tensor in found.items()
            if is_ghost(tensor) or self.twins.is_stained(tensor)
        }
        stored = self.facts["held"]
        rooms = {name: _room(wanted[name], *stored[name]) for name in wanted if name in stored}
        if rooms:
            sharded.read(self.path, dict(rooms), group)
        for name, tensor in wanted.items():
            if name not in rooms:
                continue
            room = cut(rooms[name], tensor)
            if is_ghost(tensor):
                set_value(tensor, room.to(tensor.device))
            elif tensor.shape == room.shape and not isinstance(tensor, DTensor):
                with torch.no_grad():
                    tensor.copy_(room)
                self.twins.clean(tensor)
        gc.collect()
        if self.twins.still_stained():
            raise RequestError(
                "the script adds up results of the model in a tensor that lumi-moai cannot find to save it; keep it in"
                " a variable, list or attribute of the function that trains, or add up numbers read with .item()"
            )


def _room(held: torch.Tensor, dtype: str, shape: list[int]) -> torch.Tensor:
    """Where a value is loaded: at once into a tensor that is spread over ranks."""
    if isinstance(held, DTensor) and list(held.shape) == shape:
        return bare(held)
    return torch.zeros(shape, dtype=getattr(torch, dtype))
