"""How far rounding alone moves a step: some models make much of the last digit, and that is no fault of the ranks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from .. import layout
from ..gradients import local

TRIES = 2
FACTOR = 10.0
"""How much further than a nudge of the weights the ranks may move a step: each of its sums is rounded anew there."""
MOST = 0.25
"""How far they may, unless a nudge itself moves it further: half of what a gradient moves that is counted twice."""


@contextmanager
def changed(
    parameters: Iterable[torch.Tensor], change: Callable[[torch.Tensor, torch.Generator], None], seed: int
) -> Iterator[None]:
    """Within this *parameters* are as *change* makes them in place, by random numbers of *seed*: alike on all ranks."""
    mine = [local(layout.now(each)) for each in parameters]
    before = [each.detach().clone() for each in mine]
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in mine:
            change(each.data, chance)
    try:
        yield
    finally:
        with torch.no_grad():
            for each, values in zip(mine, before, strict=True):
                each.data.copy_(values)


def nudge(weight: torch.Tensor, chance: torch.Generator) -> None:
    """Make each number of *weight* one last digit higher or lower."""
    signs = torch.randint(0, 2, weight.shape, generator=chance).to(weight) * 2 - 1
    weight.mul_(1 + signs * torch.finfo(weight.dtype).eps)


def spread(numbers: Sequence[float]) -> float:
    """How far apart *numbers* are, relative to the largest."""
    return (max(numbers) - min(numbers)) / max(*map(abs, numbers), 1e-6)


def allowed(moved: float, tolerance: float) -> float:
    """How far apart, relative, one device and the ranks may be where a nudge of the weights moves a step by *moved*."""
    far = FACTOR * moved
    return max(tolerance, far if moved > MOST else min(MOST, far))
