"""What a piece was computed with, so that it can be computed again: random numbers, autocast."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ... import accelerator

Chance = tuple[torch.Tensor, torch.Tensor | None]


def chance() -> Chance:
    """The random numbers that the CPU and this rank's device will draw."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if accelerator.is_gpu() else None


def put_back(state: Chance) -> None:
    """Let CPU and device draw again what they drew from *state* on."""
    of_cpu, of_device = state
    torch.set_rng_state(of_cpu)
    if of_device is not None:
        torch.cuda.set_rng_state(of_device)


@contextmanager
def chance_kept() -> Iterator[None]:
    """Whatever is drawn inside, the script draws what it would have drawn without it."""
    before = chance()
    try:
        yield
    finally:
        put_back(before)


def autocasts() -> list[dict[str, Any]]:
    """How the script computes at this place: the words of its `torch.autocast`, per kind of device."""
    kinds = dict.fromkeys(("cpu", accelerator.device().type))
    return [
        {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
            "cache_enabled": torch.is_autocast_cache_enabled(),
        }
        for kind in kinds
    ]


@contextmanager
def computed_as(words: list[dict[str, Any]]) -> Iterator[None]:
    """Compute with gradient, as `autocasts` said then."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for each in words:
            stack.enter_context(torch.autocast(**each))
        yield
