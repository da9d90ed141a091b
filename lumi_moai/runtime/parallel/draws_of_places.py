"""Places in a batch that a script draws: `torch.randint(len(x), (2,))`, `random.sample(range(len(x)), 2)`.

A number of rows as the limit of a draw is that of the whole batch, so that all ranks draw alike, and take as many
numbers from the stream that they share. What comes out is known as places among all rows.
"""

import functools
import inspect
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from . import counts
from .counts.ranged import OfWhole, Own, Places
from .share import Share

ShareAtHand = Callable[[], Share | None]


def install(at_hand: ShareAtHand) -> None:
    """Replace the draws whose limit may be a number of rows; *at_hand* tells how the batch was cut."""
    for name in ("randint", "randperm"):
        setattr(torch, name, _of_torch(getattr(torch, name)))
    random.Random.randrange = _ranged(random.Random.randrange)  # type: ignore[method-assign]
    for name in ("sample", "choice", "choices"):
        setattr(random.Random, name, _among(getattr(random.Random, name), at_hand))
    random.Random.shuffle = _shuffled(random.Random.shuffle, at_hand)  # type: ignore[method-assign]
    for name in ("randrange", "randint", "sample", "choice", "choices", "shuffle"):
        setattr(random, name, getattr(random._inst, name))
    np.random.permutation = of_numpy(np.random.permutation)


def _of_torch(own: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    bare = inspect.unwrap(own)  # to which no size is by chance that of a rank's rows

    @functools.wraps(own)
    def draw(*args: Any, **kwargs: Any) -> Any:
        given = args if own.__name__ == "randperm" else args[:-1] if "size" not in kwargs else args
        limits = (*given, *(kwargs.get(name) for name in ("low", "high", "n")))
        if not any(isinstance(each, (counts.Rows, OfWhole)) for each in limits):
            return own(*args, **kwargs)
        # Of a device's own stream the ranks would not draw alike.
        is_own = kwargs.get("generator") is None and kwargs.get("device") is not None
        words = {name: _whole(each) for name, each in kwargs.items() if not (is_own and name == "device")}
        drawn = bare(*map(_whole, args), **words)
        return counts.of_all(drawn.to(kwargs["device"]) if is_own else drawn)

    return draw


def of_numpy(own: Callable[..., Any]) -> Callable[..., Any]:
    """The draw *own* of numpy, of which some words are numbers of rows: for all rows."""

    @functools.wraps(own)
    def draw(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(each, counts.Rows) for each in (*args, *kwargs.values())):
            return own(*args, **kwargs)
        return known(own(*map(_whole, args), **{name: _whole(each) for name, each in kwargs.items()}))

    return draw


def known(drawn: Any) -> Any:
    """What numpy drew, known as places among the rows of the whole batch."""
    return drawn.view(Places) if isinstance(drawn, np.ndarray) else OfWhole(drawn)


def _whole(word: Any) -> Any:
    """*word*, with all rows in the place of numbers of rows."""
    if isinstance(word, (tuple, list)):
        return type(word)(map(_whole, word)) if type(word) in (tuple, list) else [_whole(each) for each in word]
    return word.whole if isinstance(word, counts.Rows) else word


def _ranged(own: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(own)
    def draw(chance: random.Random, *args: Any, **kwargs: Any) -> int:
        is_place = any(isinstance(each, counts.Rows) for each in args)
        found = own(chance, *map(_whole, args), **kwargs)
        return OfWhole(found) if is_place else found

    return draw


def _among(own: Callable[..., Any], at_hand: ShareAtHand) -> Callable[..., Any]:
    @functools.wraps(own)
    def draw(chance: random.Random, population: Any, *args: Any, **kwargs: Any) -> Any:
        every = _every(population, at_hand)
        return own(chance, population if every is None else every, *map(_whole, args), **kwargs)

    return draw


def _shuffled(own: Callable[..., None], at_hand: ShareAtHand) -> Callable[..., None]:
    @functools.wraps(own)
    def shuffle(chance: random.Random, places: Any) -> None:
        every = _every(places, at_hand)
        if every is not None:
            places[:] = every
        own(chance, places)

    return shuffle


def _every(places: Any, at_hand: ShareAtHand) -> Sequence[int] | None:
    """All places of the batch where *places* are those of this rank's rows, `range(len(x))`; else None."""
    share = at_hand() if type(places) is list and places and type(places[0]) is Own else None
    if share is None or places != list(range(max(share.rows, 1))):
        return None
    return [OfWhole(place) for place in range(share.total)]
