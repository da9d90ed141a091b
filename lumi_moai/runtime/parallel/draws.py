"""Random numbers for the rows of a batch: all ranks draw those of the global batch, and each keeps its rows'.

The ranks share one stream of random numbers on the CPU. Were each to draw for its own rows only, all would draw the
same noise. So a draw on the CPU whose first size is the number of this rank's rows, while a batch is shared out, gives
rows of the draw that one device would make. On a device of its own each rank has its own stream, and nothing changes.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch.distributions import Categorical

from ...errors import RequestError
from .. import accelerator, group
from . import counts
from .counts.places import FIRST, PICKED
from .share import Share, bounds

Rows = tuple[int, int, int]
"""Rows of the global batch; the first of this rank; how many it computes, a stand-in row as well."""
Among = tuple[int, Any]
"""How many rows all of a tensor has, and the places of this rank's, which are drawn for."""
Draw = Callable[..., torch.Tensor]
RowsAtHand = Callable[[Share | None], Rows | None]
"""Gives this rank's rows, told how the batch of a draw was cut if its size or its tensor says so."""
Told = Callable[[str, int], None]
_KINDS = (torch.Tensor, counts.OfBatch)
"""The classes of tensors that may have rows of which each rank has its part."""


def rows_of(share: Share, rank: int) -> Rows:
    """What the data rank *rank* has of a batch that was cut as *share* says."""
    start, end, _ = bounds(share.total, rank, share.ranks)
    return share.total, start, end - start


def install(at_hand: RowsAtHand, told: Told) -> None:
    """Replace torch's draws; *at_hand*: this rank's rows while a batch is shared out; *told*: what counted as such."""
    for name, place in (("randn", 0), ("rand", 0), ("randint", -1)):
        setattr(torch, name, _sized(getattr(torch, name), place, at_hand, told))
    torch.multinomial = _picked(_each(torch.multinomial, at_hand, told, 2), at_hand)
    for name in ("randperm", "tensor", "as_tensor", "from_numpy"):
        setattr(torch, name, _counted(getattr(torch, name)))
    Categorical.sample = _chosen(Categorical.sample)
    torch.full = _filled(torch.full)
    for name in ("zeros", "ones", "empty"):
        setattr(torch, name, _made(getattr(torch, name)))
    for name in ("linspace", "logspace"):
        setattr(torch, name, _spaced(getattr(torch, name)))
    for name in ("randn_like", "rand_like", "randint_like"):
        setattr(torch, name, _like(getattr(torch, name), at_hand, told))
    torch.bernoulli = _each(torch.bernoulli, at_hand, told)
    torch.Tensor.multinomial = _each(torch.Tensor.multinomial, at_hand, told, 2)
    torch.Tensor.bernoulli = _each(torch.Tensor.bernoulli, at_hand, told)
    torch.normal = _sized(_each(torch.normal, at_hand, told), 2, at_hand, told)
    for name in ("poisson", "binomial", "_standard_gamma", "_sample_dirichlet"):
        dims = 2 if name == "_sample_dirichlet" else 1  # what a Dirichlet, and so a Beta, has last are no rows
        setattr(torch, name, _apart(getattr(torch, name), at_hand, dims))
    for name in (
        "normal_",
        "uniform_",
        "bernoulli_",
        "random_",
        "exponential_",
        "log_normal_",
        "cauchy_",
        "geometric_",
    ):
        setattr(torch.Tensor, name, _in_place(getattr(torch.Tensor, name), at_hand, told))
    if not accelerator.is_gpu():
        for name in ("dropout", "dropout1d", "dropout2d", "dropout3d"):
            setattr(F, name, _dropout(getattr(F, name), at_hand))


def _is_shared(words: Mapping[str, Any], device: Any = None) -> bool:
    """Whether a draw with *words* comes from the stream that the ranks share, or from a generator that each has."""
    named = words.get("device", device)
    is_cpu = named is None or not accelerator.is_gpu() or torch.device(named).type == "cpu"
    return is_cpu or words.get("generator") is not None


def _sized(own: Draw, place: int, at_hand: RowsAtHand, told: Told) -> Draw:
    @functools.wraps(own)
    def draw(*args: Any, **kwargs: Any) -> Any:
        size = _size(args, place, kwargs.get("size"))
        rows = at_hand(_cut_of(size)) if _is_shared(kwargs) else None
        sizes: Sequence[Any] = size if _cut_of(size) is None else ()
        aside = [each.share for each in sizes[1:] if isinstance(each, counts.Rows)]
        if aside and _is_shared(kwargs) and at_hand(aside[0]) is not None:
            _check(own, aside)
        # One number alone is a decision of the script, which all ranks must make alike.
        is_number = size and tuple(size) == (1,) and not isinstance(size[0], counts.Rows)
        rows = times(size[0], rows) if rows is not None and size and not is_number else None
        if rows is None:
            return own(*args, **kwargs)
        told(f"torch.{own.__name__}", rows[2])
        words = {key: value for key, value in kwargs.items() if key not in ("size", "out")}
        limits = () if place == 0 else args if "size" in kwargs else args[:place]
        return counts.rows_like(size[0], _part(own(*limits, size=(rows[0], *size[1:]), **words), _slice(rows), kwargs))

    return draw


def _cut_of(size: Sequence[Any]) -> Share | None:
    """How the batch was cut that *size* begins with the rows of."""
    first = size[0] if len(size) else None
    return first.share if isinstance(first, counts.Rows) else None


def _aside(rows: Rows | None, tensor: torch.Tensor) -> list[Share]:
    return [tensor.share] if rows is not None and isinstance(tensor, counts.OfBatch) and (tensor.at or 0) > 0 else []


def _check(own: Draw, shares: Sequence[Share | None]) -> None:
    """The script draws by *own* for rows in another dimension than the first, of batches that were cut as *shares* say.

    Raises RequestError where they have time first: ranks with other numbers of steps draw other numbers.
    """
    if any(share is not None and share.steps for share in shares):
        raise RequestError(
            f"{own.__name__} draws for a batch with time first, (time, rows), and would draw the same for the rows of"
            " each rank; draw for (rows, time) and transpose, or run it on one device"
        )


def times(size: Any, rows: Rows) -> Rows | None:
    """*rows*, or as many times these as *size* is: `x.size(0) * 5`; None if it is no number of rows."""
    if isinstance(size, counts.Rows) and size.is_picked:
        return counts.among_all(operator.index(size), size.share) if size.share else None
    if isinstance(size, counts.Rows) and rows[2] and size.whole % rows[0] == 0:
        times = size.whole // rows[0]
        return rows[0] * times, rows[1] * times, rows[2] * times
    return rows if size == rows[2] else None


def _picked(own: Draw, at_hand: RowsAtHand) -> Draw:
    """`multinomial`, asked for a number of rows."""

    @functools.wraps(own)
    def multinomial(input: torch.Tensor, num_samples: Any, *args: Any, **kwargs: Any) -> Any:
        is_of_rows = isinstance(num_samples, counts.Rows) and _is_shared(kwargs, input.device)
        rows = at_hand(num_samples.share) if is_of_rows else None
        mine = None if rows is None or input.dim() != 1 else times(num_samples, rows)
        if mine is None:
            return own(input, num_samples, *args, **kwargs)
        return counts.rows_like(num_samples, _part(own(input, mine[0], *args, **kwargs), _slice(mine), kwargs))

    return multinomial


def _chosen(own: Draw) -> Draw:
    """`Categorical.sample`, which draws for rows times steps in one line, and gives them their shape behind that."""

    @functools.wraps(own)
    def sample(self: Categorical, *args: Any, **kwargs: Any) -> torch.Tensor:
        made, chances = own(self, *args, **kwargs), self._param
        is_of_rows = type(chances) is counts.OfBatch and chances.at == 0 and chances.dim() > 1
        return counts.part_of(made, chances, made.dim() - chances.dim() + 1) if is_of_rows else made

    return sample


def _counted(own: Draw) -> Draw:
    """*own*, to which a number of rows is that of the global batch, and rows that numpy drew are of the batch."""

    @functools.wraps(own)
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = own(*(_told(each) for each in args[:1]), *args[1:], **kwargs)
        share = args[0].share if args and type(args[0]) is counts.drawn.Drawn else None
        return made if share is None else counts.become(made, share, 0)

    return make


def _told(value: Any) -> Any:
    """*value*, a number or a list of such, as the script means it: `torch.tensor([right, len(x)])`."""
    if isinstance(value, counts.Rows):
        return value.whole
    has_rows = isinstance(value, (list, tuple)) and any(isinstance(each, counts.Rows) for each in value)
    return [_told(each) for each in value] if has_rows else value


def _filled(own: Draw) -> Draw:
    """*own*, whose tensor of as many rows as the batch has is a part of it: chances to draw by."""

    @functools.wraps(own)
    def full(*args: Any, **kwargs: Any) -> torch.Tensor:
        size = kwargs.get("size", args[0] if args else ())
        words = {name: _told(each) if name == "fill_value" else each for name, each in kwargs.items()}
        return counts.rows_like(size[0] if len(size) else 0, own(*args[:1], *map(_told, args[1:]), **words))

    return full


def _made(own: Draw) -> Draw:
    """*own*, of whose tensors the same is true: a mask, a label in one of many places, what rows are written into."""

    @functools.wraps(own)
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        size = _size(args, 0, kwargs.get("size"))
        return counts.rows_like(size[0] if len(size) else 0, own(*args, **kwargs))

    return make


def _spaced(own: Draw) -> Draw:
    """*own*, of whose numbers, spaced for the rows of the batch, this rank has those of its rows."""

    @functools.wraps(own)
    def space(*args: Any, **kwargs: Any) -> torch.Tensor:
        steps = kwargs.get("steps", args[2] if len(args) > 2 else None)
        if not isinstance(steps, counts.Rows):
            return own(*args, **kwargs)
        every = own(*map(_told, args), **{name: _told(each) for name, each in kwargs.items()})
        part = counts.tables.taken(torch.Tensor.__getitem__, every, slice(steps))
        return own(*args, **kwargs) if part is None else part

    return space


def _size(args: Sequence[Any], place: int, named: Any) -> Sequence[int]:
    """The size that a draw asks for: `(2, 3)`, `((2, 3),)`, or the last word of `randint`."""
    given = named if named is not None else (args[place] if len(args) > max(place, 0) else ())
    if isinstance(given, (int, counts.Rows)):
        given = () if place else args
    return given if isinstance(given, (tuple, list)) else ()


def _slice(rows: Rows) -> slice:
    return slice(rows[1], rows[1] + rows[2])


def _among(tensor: Any, rows: Rows) -> Among | None:
    """Where this rank's part *tensor* is in all of it; None if it has no rows.

    A weight has none, and one number alone is a decision.
    """
    if type(tensor) not in _KINDS or tensor.dim() == 0:
        return None
    if type(tensor) is counts.OfBatch:
        return _in_batch(tensor)
    return (rows[0], _slice(rows)) if len(tensor) == rows[2] and tuple(tensor.shape) != (1,) else None


def _in_batch(tensor: "counts.OfBatch") -> Among | None:
    if tensor.at == PICKED:
        total, start, mine = counts.among_all(len(tensor), tensor.share)
        return (total, slice(start, start + mine)) if start + mine <= total else None
    # Of another batch than the one that was fetched last, if the script has two.
    rows = rows_of(tensor.share, dist.get_rank(group.data_group()))
    if len(tensor) == rows[2]:
        return (rows[0], _slice(rows)) if tuple(tensor.shape) != (1,) else None
    times, rest = divmod(len(tensor), rows[2])
    if rest or not times or tensor.at not in FIRST:
        return None
    if tensor.at == 0:
        return rows[0] * times, slice(rows[1] * times, (rows[1] + rows[2]) * times)
    own = torch.arange(rows[1], rows[1] + rows[2])
    return rows[0] * times, torch.cat([own + place * rows[0] for place in range(times)])


def _part(whole: torch.Tensor, own: Any, words: Any) -> torch.Tensor:
    """This rank's rows of *whole*, its *own*, as a tensor by themselves."""
    with torch.no_grad():
        part = whole[own].clone()
    return part.requires_grad_() if words.get("requires_grad") else part


def _ones(length: int, like: torch.Tensor) -> torch.Tensor:
    """Ones for *length* rows like those of *like*, in the same order in memory: torch draws in that order."""
    # One row inside of positions has their stride; one row around them has a larger one.
    order = sorted(range(like.dim()), key=lambda dim: (-like.stride(dim), dim == 0))
    size = (length, *like.shape[1:])
    return like.new_ones([size[dim] for dim in order]).permute([order.index(dim) for dim in range(like.dim())])


def _like(own: Draw, at_hand: RowsAtHand, told: Told) -> Draw:
    @functools.wraps(own)
    def draw(like: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = at_hand(counts.share_of((like,))) if type(like) in _KINDS and _is_shared(kwargs, like.device) else None
        _check(own, _aside(rows, like))
        found = None if rows is None else _among(like, rows)
        if rows is None or found is None:
            return own(like, *args, **kwargs)
        told(f"torch.{own.__name__}", rows[2])
        return counts.like_rows(_part(own(_ones(found[0], like), *args, **kwargs), found[1], kwargs), (like,))

    return draw


def _each(own: Draw, at_hand: RowsAtHand, told: Told, dims: int = 0) -> Draw:
    """`bernoulli` of chances, `normal` of means: the others' rows are drawn as well, by chances that do not matter.

    *dims*: of chances of rows, where others are chances too.
    """

    @functools.wraps(own)
    def draw(*args: Any, **kwargs: Any) -> Any:
        rows, given = _given(own, args, kwargs, at_hand)
        found = None if rows is None else _among(given[0], rows)
        if rows is None or found is None or "out" in kwargs or not all(each.is_contiguous() for each in given):
            return own(*args, **kwargs)
        if (dims and given[0].dim() != dims) or len(set(map(len, given))) > 1:
            return own(*args, **kwargs)
        told(f"torch.{own.__name__}", rows[2])
        with torch.no_grad():
            whole = [_for_all(each, found) if any(each is one for one in given) else each for each in args]
        return counts.like_rows(_part(own(*whole, **kwargs), found[1], kwargs), given)

    return draw


def _given(
    own: Draw, args: tuple, kwargs: Mapping[str, Any], at_hand: RowsAtHand
) -> tuple[Rows | None, list[torch.Tensor]]:
    """The rows at hand, and those of *args* that have them; no rows if none has."""
    chances = [each for each in args if torch.is_tensor(each)]
    rows = at_hand(counts.share_of(chances)) if chances and _is_shared(kwargs, chances[0].device) else None
    _check(own, [share for each in chances for share in _aside(rows, each)])
    given = [each for each in chances if rows is not None and _among(each, rows)]
    return (rows, given) if given else (None, [])


def _for_all(chances: torch.Tensor, found: Among) -> torch.Tensor:
    """*chances* of this rank's rows, with some for the others'."""
    whole = torch.full((found[0], *chances.shape[1:]), 0.5, dtype=chances.dtype, device=chances.device)
    whole[found[1]] = chances.as_subclass(torch.Tensor)
    return whole


def _apart(own: Draw, at_hand: RowsAtHand, dims: int) -> Draw:
    """*own*, which takes as many random numbers as its chances happen to ask for: each rank's are its own.

    *dims*: at least so many have chances of rows. The stream that the ranks share goes on with one number, so it stays
    in step.
    """

    @functools.wraps(own)
    def draw(*args: Any, **kwargs: Any) -> Any:
        rows, given = _given(own, args, kwargs, at_hand)
        if rows is None or given[0].dim() < dims:
            return own(*args, **kwargs)
        seed = int(torch.empty((), dtype=torch.int64).random_(2**48).numpy())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + rows[1])
            return counts.like_rows(own(*args, **kwargs), given)

    return draw


def _in_place(own: Draw, at_hand: RowsAtHand, told: Told) -> Draw:
    """`x.normal_()` and its like."""

    @functools.wraps(own)
    def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = (
            at_hand(counts.share_of((tensor,)))
            if type(tensor) in _KINDS and _is_shared(kwargs, tensor.device)
            else None
        )
        _check(own, _aside(rows, tensor))
        found = None if rows is None else _among(tensor, rows)
        if rows is None or found is None or any(torch.is_tensor(each) for each in args):
            return own(tensor, *args, **kwargs)
        told(f"Tensor.{own.__name__}", rows[2])
        with torch.no_grad():
            whole = own(_ones(found[0], tensor), *args, **kwargs)
            return tensor.copy_(whole[found[1]])

    return draw


def _dropout(own: Draw, at_hand: RowsAtHand) -> Draw:
    """Dropout on the CPU, by the mask of the global batch; a first size of rows times heads counts as well.

    What it makes of rows in the loop are rows of the batch, as what torch's other functions make is.
    """

    @functools.wraps(own)
    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        rows = at_hand(counts.share_of((input,))) if training and 0 < p < 1 and type(input) in _KINDS else None
        if rows is None or input.dim() == 0 or len(input) % rows[2]:
            return counts.like_rows(own(input, p, training, inplace), (input,))
        each = len(input) // rows[2]
        with torch.no_grad():
            mask = own(_ones(rows[0] * each, input), p, True)
        mine = mask[rows[1] * each : (rows[1] + rows[2]) * each]
        return counts.like_rows(input.mul_(mine) if inplace else input * mine, (input,))

    return dropout
