"""Gradients that a script asks for by itself: `torch.autograd.grad` of weights, and `torch.func.grad`.

No parameter hears of them, so they are averaged here. Gradients for the rows of a batch, as a gradient penalty takes
them, are each rank's own and stay as they are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves

from ...errors import RequestError
from .. import group
from . import layout, marks, under_way
from .counts import rows
from .share import Share, going_back
from .single import is_one_number
from .transforming import is_transforming

if TYPE_CHECKING:
    from .engine import Engine

Words = dict[str, Any]
_Pair = tuple[torch.Tensor, torch.Tensor | None]
"""A weight and its gradient."""
_ROUNDING = 1e-6
_ONE_PIECE = "use --layout micro_batches=1"


def grad(engine: "Engine", own: Callable[..., Any], words: Words) -> Any:
    """`torch.autograd.grad` called with *words*; what it gives for weights is of the global batch.

    Raises RequestError for weights that are in parts, and for a gradient of weights that is to be differentiated again.
    """
    if is_transforming():
        return own(**words)
    if not engine.in_backward:
        going_back(None)
    is_within, own = engine.in_backward, _going_back(engine, own)
    creates = bool(words.get("create_graph"))
    if engine.place is not None:
        layout.check_backward(engine.place, words["inputs"], create_graph=creates)
    inputs = (words["inputs"],) if torch.is_tensor(words["inputs"]) else tuple(words["inputs"])
    outputs = (words["outputs"],) if torch.is_tensor(words["outputs"]) else tuple(words["outputs"])
    weights = [place for place, each in enumerate(inputs) if _is_weight(engine, each)]
    pieces = engine.place is not None and engine.micro.memory.pieces > 1
    if is_within or (engine.share is None and not pieces):
        if not weights or engine.undivided.share is None or is_within:
            return own(**words)
        return _hooked(engine, inputs, weights, lambda: list(own(**words)), _through_means)
    if not weights:
        return _of_rows(own, words, outputs, engine.share)
    if creates or pieces:
        how = "create_graph=True" if creates else "micro-batches"
        way_out = _ONE_PIECE if pieces else "run it on one device"
        raise RequestError(
            f"torch.autograd.grad of weights with {how} would be of a part of the batch only; call loss.backward() and"
            f" read parameter.grad, or {way_out}"
        )
    share = engine.share_of_backward()
    ready = {**words, "outputs": outputs, "grad_outputs": seeds(outputs, words.get("grad_outputs"), share)}
    return _hooked(engine, inputs, weights, lambda: list(own(**ready)), _averages)


def _going_back(engine: "Engine", own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, within which the stages of a pipeline go back as within a backward: that is none of the script's."""

    def call(**words: Any) -> Any:
        before, engine.in_backward = engine.in_backward, True
        try:
            return own(**words)
        finally:
            engine.in_backward = before

    return call


def _hooked(
    engine: "Engine",
    inputs: Sequence[torch.Tensor],
    weights: Sequence[int],
    ask: Callable[[], list[torch.Tensor | None]],
    averages: Callable[[list[_Pair]], list[torch.Tensor | None]],
) -> tuple[torch.Tensor | None, ...]:
    """What *ask* gives for *inputs*, with the *averages* of those at *weights* as the hooks on them make them."""
    mine, hooked = [inputs[at] for at in weights], engine.gradients.hooked
    hooked.begin(mine)
    try:
        found = ask()
        means = averages([(inputs[at], found[at]) for at in weights])
        for place, mean in zip(weights, hooked.asked(mine, means), strict=True):
            found[place] = mean
    finally:
        hooked.stop()
    return tuple(found)


def _through_means(pairs: Sequence[_Pair]) -> list[torch.Tensor | None]:
    """The means of gradients that came through a model that the ranks shared out."""
    return [None if mine is None else _Mean.apply(mine) for _, mine in pairs]


class _Mean(torch.autograd.Function):
    """The mean of a gradient over ranks; what goes back through it is averaged later, as all gradients are."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return group.total(gradient) / dist.get_world_size(group.data_group())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def _of_rows(own: Callable[..., Any], words: Words, outputs: Sequence[torch.Tensor], share: Share | None) -> Any:
    """Gradients for what is no weight, such as the rows of the batch: of a loss of torch's, those of the global one."""
    if share is None or len(outputs) != 1 or not marks.is_marked(outputs[0]):
        return _unchanged(own, words)
    # Its gradient for this rank's rows has a factor that the average over ranks would take away.
    going_back(share)
    given = words.get("grad_outputs")
    seed = given[0] if isinstance(given, (tuple, list)) else given
    mine = torch.full_like(outputs[0], share.weight) if seed is None else seed * share.weight
    return _unchanged(own, {**words, "grad_outputs": mine})


def _unchanged(own: Callable[..., Any], words: Words) -> Any:
    rows.ASKED.append(None)
    try:
        return own(**words)
    finally:
        rows.ASKED.pop()


def _is_weight(engine: "Engine", tensor: Any) -> bool:
    return isinstance(tensor, torch.nn.Parameter) or any(tensor is each for each in engine.gradients.parameters)


def _averages(pairs: Sequence[_Pair]) -> list[torch.Tensor | None]:
    """The averages over ranks of some weights' gradients; None for one that no rank's rows reached."""
    with torch.no_grad():
        mine = [torch.zeros_like(weight) if mine is None else mine.clone() for weight, mine in pairs]
        works = [group.start_average(each) for each in mine]
        reached = group.total(torch.tensor([float(mine is not None) for _, mine in pairs]))
        for work, _ in works:
            work.wait()
        means = [each / divisor for each, (_, divisor) in zip(mine, works, strict=True)]
    return [mean if was_reached else None for mean, was_reached in zip(means, reached > 0, strict=True)]


def seeds(roots: Sequence[torch.Tensor], given: Any, share: Share | None) -> tuple[torch.Tensor | None, ...]:
    """What a backward from *roots* starts with, so that the plain average over ranks is of the global loss."""
    mine = tuple(given) if isinstance(given, (tuple, list)) else (given,) * len(roots)
    if share is None:
        return mine
    return tuple(_seed(root, seed, share) for root, seed in zip(roots, mine, strict=True))


def _seed(root: torch.Tensor, seed: torch.Tensor | None, share: Share) -> torch.Tensor | None:
    if seed is not None and root.numel() > 1:
        _check_seed(root, seed, share)
    # A root with one number per row stands for their sum over all ranks, not for a mean.
    factor = share.scale if is_one_number(root, share) else float(share.ranks if share.rows else 0)
    if factor == 1.0:
        return seed
    return torch.full_like(under_way.plain(root), factor) if seed is None else seed * factor


def _check_seed(root: torch.Tensor, seed: torch.Tensor, share: Share) -> None:
    """Raise RequestError for the *seed* of a backward from rows that is one over this rank's rows."""
    numbers = seed.as_subclass(torch.Tensor).reshape(-1)
    if share.rows < 2 or not len(numbers) or not bool((numbers == numbers[0]).all()):
        return
    first = float(numbers[0])
    if abs(first * len(root) - 1) < _ROUNDING:
        raise RequestError(
            f"backward(gradient) begins with {first:g}, one over this rank's rows; divide by len(x) a tensor"
            " made of the batch, as torch.ones_like(loss) / len(x), or call loss.mean().backward()"
        )


def functional(own: Callable[..., Any], share: Callable[[], Share | None]) -> Callable[..., Any]:
    """`torch.func.grad`, or its like, which refuses weights while *share* says that a batch is shared out."""

    @functools.wraps(own)
    def transform(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
        made = own(func, argnums, has_aux)

        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            mine = None if is_transforming() else share()
            if mine is not None:
                _check(args, (argnums,) if isinstance(argnums, int) else argnums, max(mine.rows, 1))
            return made(*args, **kwargs)

        return call

    return transform


def _check(args: Sequence[Any], asked: Sequence[int], rows: int) -> None:
    leaves = [leaf for at in asked for leaf in tree_leaves(args[at]) if torch.is_tensor(leaf)]
    if any(leaf.dim() == 0 or len(leaf) != rows for leaf in leaves):
        raise RequestError(
            "torch.func.grad of weights gives the gradient of this rank's rows while a batch is shared out; call"
            " loss.backward() and read parameter.grad, or run it on one device"
        )
