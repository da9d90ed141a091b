"""What the ranks do together within code that torch.compile makes.

A graph is made once and runs for many batches: a training batch, an evaluation, the self-check. So it holds operators
that torch does not look into, and each asks whenever it runs how the batch at hand was cut. What asks while the graph
is made would have that answer in it for ever, and a sum over ranks would be of tensors without numbers.
"""

from collections.abc import Callable
from typing import Any

import torch

from .. import group

Loss = tuple[torch.Tensor, torch.Tensor]
"""The value of a loss, and what the gradient of this rank's sum is multiplied by."""
Moments = tuple[torch.Tensor, ...]
"""Count, mean and variance of each channel; 1, or 0 for a stand-in row; whether ranks share them."""

LOSS: list[Callable[[torch.Tensor, torch.Tensor | None], Loss]] = []
"""Gives them for this rank's sum and its count; set once."""
MOMENTS: list[Callable[[torch.Tensor], Moments]] = []
"""Gives them for this rank's rows; set once."""

# A graph that CUDA replays runs no Python.
_WORDS: dict[str, Any] = {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


def loss(own: torch.Tensor, count: torch.Tensor | float | None) -> torch.Tensor:
    """The sum of *own* over ranks, over that of *count*; without a count, the sum."""
    counts = None if count is None else torch.as_tensor(count, device=own.device)
    return _loss(own, counts, torch.is_grad_enabled())[0]


def moments(rows: torch.Tensor) -> Moments:
    """Those of *rows*."""
    is_training = torch.is_grad_enabled()
    with torch.no_grad():
        return _moments(rows, is_training)


def total(values: torch.Tensor, is_shared: torch.Tensor) -> torch.Tensor:
    """The sum of *values* over ranks if *is_shared* says so, a truth value on the CPU."""
    return _total(values, is_shared)


def keep_graphs_apart() -> None:
    """Let torch find no graph in its folder of compiled code that it made of this script for one device."""
    if hasattr(torch.compiler, "config") and hasattr(torch.compiler.config, "cache_key_tag"):
        torch.compiler.config.cache_key_tag += "lumi-moai"


@torch.library.custom_op("lumi_moai::loss", mutates_args=(), **_WORDS)
def _loss(own: torch.Tensor, count: torch.Tensor | None, is_training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.set_grad_enabled(is_training):  # as it was when the graph was made; graphs run without
        value, factor = LOSS[0](own, count)
    return value.to(own.dtype, copy=True), factor.clone()


@_loss.register_fake
def _(own: torch.Tensor, count: torch.Tensor | None, is_training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(own), torch.empty_like(own, dtype=torch.float64)


def _keep_factor(ctx: Any, inputs: tuple, output: Loss) -> None:
    ctx.save_for_backward(output[1])


def _loss_back(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None]:
    (factor,) = ctx.saved_tensors
    return gradient * factor.to(gradient.dtype), None, None


_loss.register_autograd(_loss_back, setup_context=_keep_factor)


@torch.library.custom_op("lumi_moai::moments", mutates_args=(), **_WORDS)
def _moments(
    rows: torch.Tensor, is_training: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.set_grad_enabled(is_training):
        n, mean, variance, counts, is_shared = MOMENTS[0](rows)
    return n.clone(), mean.clone(), variance.clone(), counts, is_shared


@_moments.register_fake
def _(
    rows: torch.Tensor, is_training: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    per_channel = [rows.new_empty(rows.shape[1], dtype=torch.float64) for _ in range(3)]
    return *per_channel, rows.new_empty((), dtype=torch.float32), torch.empty((), dtype=torch.bool)


@torch.library.custom_op("lumi_moai::total", mutates_args=(), **_WORDS)
def _total(values: torch.Tensor, is_shared: torch.Tensor) -> torch.Tensor:
    return group.total(values) if is_shared else values.clone()


@_total.register_fake
def _(values: torch.Tensor, is_shared: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(values)
