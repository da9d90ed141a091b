"""Arrays that numpy drew for the rows of a batch, found again in the tensors that a script made of them.

Nothing of an array's kind survives `torch.FloatTensor(noise)`, but its numbers do, and random ones are nobody else's.
Whether a draw is remembered may not depend on how many rows a rank has: the ranks must follow the same tensors.
"""

from typing import Any

import numpy as np
import torch

from ..share import Share

_DRAWN: list[tuple[Any, Share]] = []
_MOST = 8
"""Draws of one batch that are remembered."""


def note(array: Any, share: Share | None) -> Any:
    """*array*, of which each rank has its rows of the batch that was cut as *share* says."""
    if share is not None and isinstance(array, np.ndarray):
        if _DRAWN and _DRAWN[0][1] is not share:
            _DRAWN.clear()
        del _DRAWN[: 1 - _MOST]
        _DRAWN.append((array, share))
    return array


def share_of(tensor: torch.Tensor) -> Share | None:
    """How the batch was cut for whose rows the numbers of *tensor* were drawn; None if they were not."""
    for array, share in _DRAWN:
        if tuple(tensor.shape) == array.shape and torch.equal(tensor.cpu(), torch.as_tensor(array).to(tensor.dtype)):
            return share
    return None
