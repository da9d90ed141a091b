"""Random numbers that a data set, or a collate function, draws for its rows: each rank its own ones.

The ranks share one stream of random numbers. Drew each from it for its own rows, the first row of every rank would be
flipped alike, and the streams would part where one row takes more numbers than another. So a rank fetches its rows
with a stream of its own, and the shared one is afterwards what it was.
"""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import get_worker_info

from .own_generators import Stream, find

_LOOKED_AT = 2
"""Batches of a loop in which a data set shows whether it draws; to keep two streams costs time in each."""
_STRIDE = 7919
"""Between the seeds of two ranks; a loader's workers have seeds next to each other."""
State = tuple[torch.Tensor, Any, Any]


class OwnChance:
    """The stream of the rank *rank* for its rows."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._own: State | None = None

    @contextmanager
    def drawing(self) -> Iterator[list[bool]]:
        """Within this the random numbers are this rank's own; then the list says whether any were drawn."""
        shared = _states()
        drew: list[bool] = []
        if self._own is None:
            jump(self.rank)
            self._own = _states()
        _set(self._own)
        try:
            yield drew
        finally:
            before, self._own = self._own, _states()
            drew.append(not _same(before, self._own))
            _set(shared)


@contextmanager
def untouched(*owners: Any) -> Iterator[None]:
    """Within this random numbers are drawn that nobody misses, also by the generators that *owners* have."""
    shared, own = _states(), [(each, each.state()) for each in find(*owners)]
    try:
        yield
    finally:
        _set(shared)
        for each, state in own:
            each.go_to(state)


class Fetching:
    """*own*, which fetches a batch from a data set or puts it together, with the stream of *chance*.

    So it is with the generators that *owners*, a data set or a collate function, have of their own.
    """

    def __init__(self, own: Callable[..., Any], chance: OwnChance, *owners: Any) -> None:
        self.own = own
        self.chance = chance
        self.streams = [Stream(each, chance.rank * _STRIDE) for each in find(*owners)]
        self._drew: list[bool] = []

    @property
    def draws(self) -> bool:
        """Whether the calls so far drew random numbers."""
        return any(self._drew)

    def __call__(self, *args: Any) -> Any:
        """What `own` gives."""
        if len(self._drew) == _LOOKED_AT and not any(self._drew):
            return self.own(*args)
        for stream in self.streams:
            stream.begin()
        drew = []
        try:
            with self.chance.drawing() as drew:
                fetched = self.own(*args)
        finally:
            drew += [stream.end() for stream in self.streams]
        self._drew = [*self._drew, any(drew)][:_LOOKED_AT]
        return fetched


class OwnSeeds:
    """The `worker_init_fn` of a loader whose workers fetch the rows of the rank *rank*; *own* is the script's.

    *collate* may have generators of its own, as the worker's data set may.
    """

    def __init__(self, rank: int, own: Callable[[int], Any] | None, collate: Any = None) -> None:
        self.rank = rank
        self.own = own
        self.collate = collate

    def __call__(self, worker: int) -> None:
        """Seed a worker process: torch has given those of all ranks the same seeds, and the script may have too."""
        if self.own is not None:
            self.own(worker)
        jump(self.rank)
        info = get_worker_info()
        for each in find(info.dataset if info else None, self.collate):
            each.seed(each.number() + self.rank * _STRIDE)


def jump(rank: int) -> None:
    """Go on with other random numbers on each *rank*."""
    away = rank * _STRIDE
    torch.default_generator.manual_seed((_number() + away) % 2**63)
    random.seed(random.getrandbits(32) + away)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed((int(numpy.random.randint(2**31)) + away) % 2**32)


def _number() -> int:
    return int(torch.empty((), dtype=torch.int64).random_().numpy())


def _states() -> State:
    numpy = sys.modules.get("numpy")
    return torch.get_rng_state(), random.getstate(), numpy.random.get_state() if numpy else None


def _set(states: State) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    if states[2] is not None:
        sys.modules["numpy"].random.set_state(states[2])


def _same(first: State, second: State) -> bool:
    of_numpy = [None if each[2] is None else (each[2][1].tobytes(), *each[2][2:]) for each in (first, second)]
    return torch.equal(first[0], second[0]) and first[1] == second[1] and of_numpy[0] == of_numpy[1]
