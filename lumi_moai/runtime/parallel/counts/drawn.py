"""Arrays that numpy drew for the rows of a batch, found again in the tensors that a script made of them.

Nothing of an array's kind survives `torch.FloatTensor(noise)`, but its numbers do, and random ones are nobody else's.
What arithmetic makes of such an array, `0.1 * noise`, is remembered too.
Whether a draw is remembered may not depend on how many rows a rank has: the ranks must follow the same tensors.
"""

from typing import Any

import numpy as np
import torch

from ..share import Share

_DRAWN: list[tuple[Any, Share]] = []
_MOST = 16
"""Draws of one batch, and what is made of them, that are remembered."""


class Drawn(np.ndarray):
    """An array of rows that were drawn, or made of such."""

    share: Share | None

    def __array_finalize__(self, of: Any) -> None:
        """This is made of the array *of*."""
        is_alike = type(of) is Drawn and self.ndim == of.ndim > 0 and len(self) == len(of)
        self.share = getattr(of, "share", None) if is_alike else None
        if self.share is not None:
            _remember(self, self.share)

    def __array_wrap__(self, array: Any, *how: Any) -> Any:
        """What numpy computed of this; a single number is one of numpy's."""
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, *how)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()  # a file has nothing of ours


def note(array: Any, share: Share | None) -> Any:
    """*array*, of which each rank has its rows of the batch that was cut as *share* says."""
    if share is None or not isinstance(array, np.ndarray):
        return array
    made = array.view(Drawn)
    made.share = share
    _remember(made, share)
    return made


def _remember(array: Any, share: Share) -> None:
    if _DRAWN and _DRAWN[0][1] is not share:
        _DRAWN.clear()
    del _DRAWN[: 1 - _MOST]
    _DRAWN.append((np.asarray(array), share))


def share_of(tensor: torch.Tensor) -> Share | None:
    """How the batch was cut for whose rows the numbers of *tensor* were drawn; None if they were not."""
    for array, share in _DRAWN:
        if tuple(tensor.shape) == array.shape and torch.equal(tensor.cpu(), torch.as_tensor(array).to(tensor.dtype)):
            return share
    return None
