"""Which tensors are one number of the batch, such as a loss, and not a number for each of its rows."""

import torch

from ...errors import RequestError
from .. import group
from .counts import OfAll, OfBatch, OfModel
from .share import Share


def is_one_number(tensor: torch.Tensor, share: Share | None) -> bool:
    """Whether *tensor* is one number of the batch that was cut as *share* says; `torch.zeros(1) + loss` is one as well.

    All ranks come here together. Raises RequestError where the one element may as well be the one row that each has.
    """
    if tensor.dim() == 0 or share is None:
        return tensor.dim() == 0
    if type(tensor) in (OfAll, OfModel):
        return tensor.numel() == 1
    if type(tensor) is OfBatch and tensor.at is not None:
        return False
    if share.total // share.ranks > 1:
        return tensor.numel() == 1  # each rank has more rows than one
    if max(group.gathered(tensor.numel())) > 1:
        return False
    if share.total > share.ranks:
        return True
    raise RequestError(
        f"a loss of shape {tuple(tensor.shape)} may be one number or that of one row, where each rank has one row of a"
        " batch; call loss.squeeze().backward() if it is one number, or loss.sum().backward() if it is one of each row"
    )
