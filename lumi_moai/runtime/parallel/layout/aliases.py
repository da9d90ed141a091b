"""What a script has read as `parameter.data` keeps its numbers when the parameter gets others.

So do classes for moving averages put a model's own weights aside: `backup[name] = p.data; p.data = shadow[name]`. A
part stays where it is in memory, because FSDP's own code holds on to it, so `p.data = other` copies.
"""

import weakref

import torch
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakIdKeyDictionary

_READ: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Of each tensor, references to what was read of it since it was given numbers."""


def remember(tensor: DTensor, alias: DTensor) -> None:
    """*alias*, which has the memory of *tensor*, is what the script has read of it."""
    _READ[tensor] = [*(each for each in _READ.get(tensor, ()) if each() is not None), weakref.ref(alias)]


def give(tensor: DTensor, value: DTensor) -> None:
    """Give *tensor* the numbers of *value*, and what was read of it, if anything still is there, memory of its own."""
    mine, other = tensor._local_tensor, value._local_tensor
    if mine.data_ptr() == other.data_ptr() and mine.numel():
        return
    living = [alias for each in _READ.pop(tensor, ()) if (alias := each()) is not None]
    with torch.no_grad():
        if living:
            before = mine.clone()
            for alias in living:
                alias._local_tensor = before
        mine.copy_(other)
