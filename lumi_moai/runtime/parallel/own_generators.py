"""Generators of random numbers that a data set, or a collate function, has of its own: `self.rng = default_rng(0)`.

Made with a seed, such a one is alike on all ranks, and the first rows of all ranks would be flipped alike. As far as a
rank's rows are drawn with it, each rank goes on from it with other numbers.
"""

import pickle
import random
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

_MOST = 4000
"""Things that are looked at."""
_LONG = 64
"""Entries of a container that may hold one; in a longer one are rows."""


_PYTHONS = getattr(random, "_inst", None)


@dataclass(frozen=True)
class Generator:
    """One of a data set's own."""

    one: Any

    def state(self) -> Any:
        """What it will draw."""
        return _STATES[_kind(self.one)][0](self.one)

    def go_to(self, state: Any) -> None:
        """Let it draw what it would have drawn at *state*."""
        _STATES[_kind(self.one)][1](self.one, state)

    def number(self) -> int:
        """A number that it draws, alike on all ranks."""
        return _STATES[_kind(self.one)][2](self.one)

    def seed(self, seed: int) -> None:
        """Let it draw other numbers for each *seed*."""
        _STATES[_kind(self.one)][3](self.one, seed)


class Stream:
    """What a rank draws from *generator* for its rows; *away* is how far from the numbers of others."""

    def __init__(self, generator: Generator, away: int) -> None:
        self.generator = generator
        self.away = away
        self._own: Any = None
        self._shared: Any = None
        """What the script is to draw afterwards."""
        self._before: Any = None

    def begin(self) -> None:
        """The rank fetches rows."""
        self._shared = [self.generator.state()]
        if self._own is None:
            seed = self.generator.number() + self.away
            self._shared.append(self.generator.state())  # another loop goes on from there, with other numbers
            self.generator.seed(seed)
        else:
            self.generator.go_to(self._own)
        self._before = self.generator.state()

    def end(self) -> bool:
        """It has them; whether the generator was drawn from. If not, nothing happened to it."""
        now = self.generator.state()
        drew = pickle.dumps(now) != pickle.dumps(self._before)
        self._own = now if drew else self._own
        self.generator.go_to(self._shared[-1 if drew else 0])
        return drew


def find(*owners: Any) -> list[Generator]:
    """Those that *owners* lead to, such as a data set, in an order that is the same on all ranks."""
    waiting, found = list(reversed(owners)), []
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if _kind(thing):
            found.append(Generator(thing))
        else:
            waiting += reversed(_held(thing))
    return found


def _held(thing: Any) -> list[Any]:
    if isinstance(thing, types.MethodType):
        return [thing.__self__]
    if isinstance(thing, types.FunctionType):
        return _used(thing)
    if isinstance(thing, (list, tuple)):
        return list(thing) if len(thing) <= _LONG else []
    if isinstance(thing, Mapping):
        return list(thing.values()) if len(thing) <= _LONG else []
    if isinstance(thing, (type, types.ModuleType, torch.Tensor)) or not hasattr(thing, "__dict__"):
        return []
    return [*vars(thing).values(), *_used(getattr(type(thing), "__getitem__", None))]


def _used(function: Any) -> list[Any]:
    """What *function* draws from beside what it is given: names of its module, and of the function around it."""
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    names = (function.__globals__.get(name) for name in code.co_names)
    cells = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
    return [*(each for each in names if _kind(each)), *cells]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _kind(thing: Any) -> str:
    """Whose generator *thing* is; empty for anything else, and for those that the whole script draws from."""
    numpy = sys.modules.get("numpy")
    if thing is torch.default_generator or thing is _PYTHONS or (numpy and thing is numpy.random.mtrand._rand):
        return ""
    if isinstance(thing, torch.Generator):
        return "torch" if thing.device.type == "cpu" else ""
    if isinstance(thing, random.Random):
        return "" if isinstance(thing, random.SystemRandom) else "python"
    if not any(each.__module__.startswith("numpy.random") for each in type(thing).__mro__):
        return ""
    return "state" if hasattr(thing, "get_state") else "bits" if hasattr(thing, "bit_generator") else ""


def _seed_bits(one: Any, seed: int) -> None:
    one.bit_generator.state = type(one.bit_generator)(seed).state


_STATES: Mapping[str, Any] = {
    "torch": (
        torch.Generator.get_state,
        torch.Generator.set_state,
        lambda one: int(torch.empty((), dtype=torch.int64).random_(generator=one).numpy()),
        lambda one, seed: one.manual_seed(seed % 2**63),
    ),
    "python": (
        random.Random.getstate,
        random.Random.setstate,
        lambda one: one.getrandbits(32),
        lambda one, seed: one.seed(seed),
    ),
    "state": (
        lambda one: one.get_state(),
        lambda one, state: one.set_state(state),
        lambda one: int(one.randint(2**31)),
        lambda one, seed: one.seed(seed % 2**32),
    ),
    "bits": (
        lambda one: one.bit_generator.state,
        lambda one, state: setattr(one.bit_generator, "state", state),
        lambda one: int(one.bit_generator.random_raw()),
        _seed_bits,
    ),
}
"""How a generator of each kind is read and set, draws a number, and is seeded."""
