"""Arrays that numpy drew for the rows of a batch, found again in the tensors that a script made of them.

Nothing of an array's kind survives `torch.FloatTensor(noise)`, but its numbers do, and random ones are nobody else's.
"""

from typing import Any

import numpy as np
import torch

from ..share import Share

_DRAWN: list[tuple[Any, Share]] = []
_LEAST = 16
"""Whole numbers that two tensors do not share by chance: a rank's labels may be fewer, and stay unknown then."""
_MOST = 8
"""Draws of one batch that are remembered."""


def note(array: Any, share: Share | None) -> Any:
    """*array*, of which each rank has its rows of the batch that was cut as *share* says."""
    if share is not None and isinstance(array, np.ndarray) and (array.size >= _LEAST or array.dtype.kind == "f"):
        if _DRAWN and _DRAWN[0][1] is not share:
            _DRAWN.clear()
        _DRAWN[_MOST - 1 :] = []
        _DRAWN.append((array, share))
    return array


def share_of(tensor: torch.Tensor) -> Share | None:
    """How the batch was cut for whose rows the numbers of *tensor* were drawn; None if they were not."""
    for array, share in _DRAWN:
        if tuple(tensor.shape) == array.shape and torch.equal(tensor.cpu(), torch.as_tensor(array).to(tensor.dtype)):
            return share
    return None
