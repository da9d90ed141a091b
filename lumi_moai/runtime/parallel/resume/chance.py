"""The random states of a rank as texts: JSON, so that reading them runs nobody's code."""

import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ... import accelerator


def states(own: Sequence[torch.Generator] = ()) -> list[str]:
    """Of torch's CPU, of Python, of numpy if it is there, and of the generators *own*."""
    numpy = sys.modules.get("numpy")
    of_numpy = numpy.random.get_state() if numpy else None
    return [
        _hex(torch.get_rng_state()),
        json.dumps(random.getstate()),
        json.dumps([of_numpy[0], of_numpy[1].tolist(), *of_numpy[2:]] if of_numpy else None),
        *(_hex(generator.get_state()) for generator in own),
    ]


def restore(texts: Sequence[str], own: Sequence[torch.Generator] = ()) -> None:
    """Set what `states` gave."""
    of_torch, of_python, of_numpy, *of_own = texts
    torch.set_rng_state(_bytes(of_torch))
    version, numbers, gauss = json.loads(of_python)
    random.setstate((version, tuple(numbers), gauss))
    numpy, words = sys.modules.get("numpy"), json.loads(of_numpy)
    if numpy and words:
        numpy.random.set_state((words[0], numpy.array(words[1], dtype="uint32"), *words[2:]))
    for generator, text in zip(own, of_own, strict=True):
        generator.set_state(_bytes(text))


def device_state() -> str:
    """Of this rank's device; empty where the CPU stands in."""
    return _hex(torch.cuda.get_rng_state()) if accelerator.is_gpu() else ""


def restore_device(text: str) -> None:
    """Set what `device_state` gave."""
    if text and accelerator.is_gpu():
        torch.cuda.set_rng_state(_bytes(text))


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _bytes(text: str) -> Any:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def packed() -> torch.Tensor:
    """All states of this rank, its device's too, as one tensor of bytes."""
    return torch.tensor(list(json.dumps([*states(), device_state()]).encode()), dtype=torch.uint8)


def unpacked(bytes_: torch.Tensor) -> list[str]:
    """What `packed` held: the texts for `restore`, and behind them the one for `restore_device`."""
    texts: list[str] = json.loads(bytes(bytes_.tolist()))
    return texts
