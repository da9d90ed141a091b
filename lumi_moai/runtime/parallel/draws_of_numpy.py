"""Random numbers that a script draws with numpy for the rows of a batch: `np.random.normal(0, 1, (len(x), 100))`.

All ranks share one state of numpy, and a generator of the script's own, such as `np.random.default_rng(0)`, is alike
on all. So a draw whose first size is a number of rows is made for the global batch, and each rank keeps its rows'. A
plain number that is equal by chance is none: only `Rows` count here.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import counts, draws_of_places
from .draws import RowsAtHand, Told, times
from .share import Share

_PLACES = (
    ("random", "random_sample", "ranf", "sample", "standard_normal", "standard_cauchy", "standard_exponential"),
    (
        *("choice", "exponential", "poisson", "geometric", "standard_gamma", "rayleigh", "chisquare", "pareto"),
        *("power", "weibull", "zipf", "standard_t", "dirichlet", "logseries"),
    ),
    (
        *("normal", "uniform", "randint", "laplace", "gumbel", "logistic", "lognormal", "beta", "gamma", "binomial"),
        *("negative_binomial", "vonmises", "wald", "f", "multivariate_normal", "multinomial", "noncentral_chisquare"),
        "integers",  # a generator's
    ),
    ("triangular", "hypergeometric", "noncentral_f"),
)
"""Numpy's draws by where the size stands among their arguments."""
_STARRED = ("rand", "randn")
"""Those whose arguments are the sizes."""


ShareAtHand = Callable[[], Share | None]


def install(at_hand: RowsAtHand, told: Told, share: ShareAtHand) -> None:
    """Replace numpy's draws; *at_hand* and *told* are those of torch's, *share* tells how the batch was cut."""
    found = Found(at_hand, told, share)
    for name, place in _placed(np.random):
        setattr(np.random, name, found.drawn(getattr(np.random, name), place))
    generator, own = _knowing(np.random.Generator, found), np.random.default_rng

    @functools.wraps(own)
    def default_rng(*args: Any, **kwargs: Any) -> np.random.Generator:
        made = own(*args, **kwargs)
        return generator(made.bit_generator) if type(made) is generator.__base__ else made

    np.random.default_rng = default_rng
    np.random.Generator = generator  # type: ignore[misc]
    np.random.RandomState = _knowing(np.random.RandomState, found)  # type: ignore[misc]


class _Known(type):
    """The class of a class of generators: numpy makes some of its own class, which a script asks for by that name."""

    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, cls.__base__)  # type: ignore[arg-type]

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls.__base__)  # type: ignore[arg-type]


def _knowing(own: type, found: "Found") -> Any:
    """The class *own* of generators, whose draws know rows."""
    draws = {name: found.method(getattr(own, name), place) for name, place in _placed(own)}
    return _Known(own.__name__, (own,), {**draws, "__slots__": (), "__module__": own.__module__})


def _placed(owner: Any) -> Iterator[tuple[str, int | None]]:
    """The draws of *owner*, and where the size stands among their arguments; None where these are the sizes."""
    every = [
        *((name, place) for place, names in enumerate(_PLACES) for name in names),
        *((name, None) for name in _STARRED),
    ]
    yield from ((name, place) for name, place in every if hasattr(owner, name))


class Found:
    """What tells whether a draw is for the rows of the batch at hand."""

    def __init__(self, at_hand: RowsAtHand, told: Told, share: ShareAtHand) -> None:
        self._at_hand, self._told, self._share = at_hand, told, share

    def drawn(self, own: Callable[..., Any], place: int | None) -> Callable[..., Any]:
        """The draw *own*, whose size stands at *place*."""

        @functools.wraps(own)
        def draw(*args: Any, **kwargs: Any) -> Any:
            return self._draw(own, own.__name__, place, args, kwargs)

        return draw

    def method(self, own: Callable[..., Any], place: int | None) -> Callable[..., Any]:
        """The same of a generator's method."""

        @functools.wraps(own)
        def draw(generator: np.random.Generator, *args: Any, **kwargs: Any) -> Any:
            return self._draw(functools.partial(own, generator), own.__name__, place, args, kwargs)

        return draw

    def _draw(self, own: Callable[..., Any], name: str, place: int | None, args: tuple, kwargs: dict[str, Any]) -> Any:
        if place is not None and _is_of_places(args[:place], kwargs):
            return draws_of_places.of_numpy(own)(*args, **kwargs)
        size = _size(args, kwargs, place)
        rows = self._at_hand(size[0].share) if size and isinstance(size[0], counts.Rows) else None
        rows = None if rows is None else times(size[0], rows)
        if rows is None:
            return own(*args, **kwargs)
        self._told(f"numpy.random.{name}", rows[2])
        whole = (rows[0], *size[1:])
        if place is None:
            args = whole
        elif "size" in kwargs:
            kwargs["size"] = whole
        else:
            args = (*args[:place], whole, *args[place + 1 :])
        mine = own(*args, **kwargs)[rows[1] : rows[1] + rows[2]]
        return counts.drawn.note(mine, (size[0].share or self._share()) if len(mine) == rows[2] else None)


def _is_of_places(limits: tuple, words: dict[str, Any]) -> bool:
    """Whether a number of rows is among the *limits* of a draw, or stands for one among its *words*."""
    found = (*limits, *(words.get(name) for name in ("a", "low", "high")))
    return any(isinstance(each, counts.Rows) for each in found)


def _size(args: tuple, kwargs: dict[str, Any], place: int | None) -> Sequence[Any]:
    """The size that a draw asks for; empty for a single number."""
    if place is None:
        return args
    given = kwargs.get("size", args[place] if len(args) > place else ())
    return given if isinstance(given, (tuple, list)) else (given,)
