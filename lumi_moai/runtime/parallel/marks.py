"""Which numbers are the same on all ranks already."""

import torch

from .known import Known

_GLOBAL = Known()


def mark(scalar: torch.Tensor) -> torch.Tensor:
    """Remember that *scalar* is the same on all ranks already."""
    _GLOBAL.add(scalar)
    return scalar


def is_marked(scalar: torch.Tensor) -> bool:
    """Whether *scalar* is known to be the same on all ranks."""
    return scalar in _GLOBAL
