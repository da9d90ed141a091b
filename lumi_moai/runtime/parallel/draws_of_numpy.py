"""Random numbers that a script draws with numpy for the rows of a batch: `np.random.normal(0, 1, (len(x), 100))`.

All ranks share one state of numpy. So a draw whose first size is a number of rows is made for the global batch, and
each rank keeps its rows'. A plain number that is equal by chance is none: only `Rows` count here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import counts
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
    ),
    ("triangular", "hypergeometric", "noncentral_f"),
)
"""Numpy's draws by where the size stands among their arguments."""
_STARRED = ("rand", "randn")
"""Those whose arguments are the sizes."""


ShareAtHand = Callable[[], Share | None]


def install(at_hand: RowsAtHand, told: Told, share: ShareAtHand) -> None:
    """Replace numpy's draws; *at_hand* and *told* are those of torch's, *share* tells how the batch was cut."""
    for place, names in enumerate(_PLACES):
        for name in names:
            setattr(np.random, name, _drawn(getattr(np.random, name), place, at_hand, told, share))
    for name in _STARRED:
        setattr(np.random, name, _drawn(getattr(np.random, name), None, at_hand, told, share))


def _drawn(
    own: Callable[..., Any], place: int | None, at_hand: RowsAtHand, told: Told, share: ShareAtHand
) -> Callable[..., Any]:
    @functools.wraps(own)
    def draw(*args: Any, **kwargs: Any) -> Any:
        size = _size(args, kwargs, place)
        rows = at_hand() if size and isinstance(size[0], counts.Rows) else None
        rows = None if rows is None else times(size[0], rows)
        if rows is None:
            return own(*args, **kwargs)
        told(f"numpy.random.{own.__name__}", rows[2])
        whole = (rows[0], *size[1:])
        if place is None:
            args = whole
        elif "size" in kwargs:
            kwargs["size"] = whole
        else:
            args = (*args[:place], whole, *args[place + 1 :])
        mine = own(*args, **kwargs)[rows[1] : rows[1] + rows[2]]
        return counts.drawn.note(mine, share() if len(mine) == rows[2] else None)

    return draw


def _size(args: tuple, kwargs: dict[str, Any], place: int | None) -> Sequence[Any]:
    """The size that a draw asks for; empty for a single number."""
    if place is None:
        return args
    given = kwargs.get("size", args[place] if len(args) > place else ())
    return given if isinstance(given, (tuple, list)) else (given,)
