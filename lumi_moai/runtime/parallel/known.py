"""A set of tensors by identity, which keeps none of them alive and leaves no trace on them.

An attribute on a parameter would end up in the script's checkpoints, and `==` of tensors rules out Python's weak sets.
"""

from weakref import ReferenceType

import torch
from torch.utils.weak import WeakIdRef  # plain ones bring tensors back by halves in PyTorch 2.6 and 2.7


class Known:
    """Tensors that something was done to."""

    def __init__(self) -> None:
        self._references: dict[int, ReferenceType[torch.Tensor]] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Remember *tensor* as long as it lives."""
        key = id(tensor)
        self._references[key] = WeakIdRef(tensor, lambda _: self._references.pop(key, None))

    def __contains__(self, tensor: torch.Tensor) -> bool:
        found = self._references.get(id(tensor))
        return found is not None and found() is tensor

    def __len__(self) -> int:
        return len(self._references)
