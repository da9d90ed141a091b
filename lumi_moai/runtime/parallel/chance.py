"""Random numbers that the script draws: rank 0's on all ranks, when it begins and with each loop over a loader."""

import random
import sys
from collections.abc import Sequence

import torch

from .. import group


def agree(own: Sequence[torch.Generator] = ()) -> None:
    """Bring the random numbers that a script may draw, and those of the generators *own*, to rank 0's state."""
    numpy = sys.modules.get("numpy")
    mine = (
        torch.get_rng_state(),
        random.getstate(),
        numpy.random.get_state() if numpy else None,
        [generator.get_state() for generator in own],
    )
    of_torch, of_python, of_numpy, of_own = group.agree(mine)
    torch.set_rng_state(of_torch)
    random.setstate(of_python)
    if numpy and of_numpy is not None:
        numpy.random.set_state(of_numpy)
    for generator, state in zip(own, of_own, strict=True):
        generator.set_state(state)
