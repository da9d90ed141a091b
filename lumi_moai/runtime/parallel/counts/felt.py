"""Numbers that all ranks have, in what each computes for its rows: their gradient is that of all rows."""

from typing import Any

import torch

from ... import group
from ..share import Share, weight_in_backward


def felt_by_all(number: torch.Tensor, share: Share) -> torch.Tensor:
    """*number*, the same on all ranks, for use with single rows: its gradient is that of the rows of all ranks."""
    with torch._C.DisableTorchFunctionSubclass():
        return _FeltByAll.apply(number, share) if number.requires_grad and torch.is_grad_enabled() else number


class _FeltByAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, number: torch.Tensor, share: Share) -> torch.Tensor:
        ctx.share = share
        return number.view_as(number)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # Backward has begun with the rank's weight, times the number of ranks.
        return (group.total(gradient.double()) * weight_in_backward(ctx.share)).to(gradient.dtype), None
