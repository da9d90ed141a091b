"""A call of a model in pieces: forward without keeping activations, and each piece again in backward.

The trained parameters are inputs of one function of torch's graph, so that each gets its gradient once, the sum over
the pieces. Where FSDP has spread them, their gradients go the way that FSDP gives them: a backward of each piece in
the backward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ....errors import RequestError
from .. import losses, marks
from . import state, tree
from .sums import Sums
from .tree import Range

Call = Callable[..., Any]
Found = tuple[list[Any], TreeSpec]
"""The outputs of one piece, and their containers."""
Outputs = tuple[list[Any], TreeSpec, list[bool]]
"""Outputs, their containers, and which of them are a loss that is global already."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One call of a model, with all that it takes to compute it again."""

    name: str
    call: Call
    leaves: tuple[Any, ...]
    """The arguments, without their containers."""
    spec: TreeSpec
    rows: int
    pieces: tuple[Range, ...]
    sums: Sums
    trained: Callable[[], list[torch.Tensor]]
    """The parameters that a gradient may come to, asked after forward; none where FSDP brings it."""
    inside: Callable[[], Any]
    """A context: the models that this one calls are computed whole."""
    nested: Callable[..., None] | None = None
    """Where FSDP brings the gradients: a backward in the backward."""
    on_full: Callable[[torch.OutOfMemoryError], None]
    """Told when a piece's backward does not fit; raises when that must end the run."""
    staged: "Staged | None" = None
    """The stages of a pipeline, where these compute the pieces."""
    is_training: bool = True
    """Whether a gradient may follow."""
    autocasts: list[dict[str, Any]] = field(default_factory=state.autocasts)
    chances: list[state.Chance] = field(default_factory=list)
    """The random numbers before each piece."""
    parameters: list[torch.Tensor] = field(default_factory=list)
    """What `trained` said after forward."""
    versions: list[int] = field(default_factory=list)

    def is_cut(self, leaf: Any) -> bool:
        """Whether an argument has the rows of the batch."""
        return tree.is_tensor(leaf) and leaf.shape[0] == self.rows

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """The arguments that a gradient goes to."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad)

    def weight(self, piece: Range) -> float:
        """The part of the rank's rows that *piece* has."""
        return (piece[1] - piece[0]) / self.rows


class Staged(Protocol):
    """Computes the pieces of a work in other ways than one after the other on this rank."""

    def forward(self, work: Work) -> "Outputs":
        """The outputs of *work*, without a graph."""

    def back(self, work: Work, grads: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The gradients of the parameters of *work* and of its arguments, given those of its outputs."""


def compute(work: Work) -> Any:
    """The output of the call of *work*; its backward computes the pieces again."""
    with torch.no_grad():
        leaves, spec, marked = work.staged.forward(work) if work.staged else _forward(work)
    starts = work.parameters or [torch.zeros((), requires_grad=True)]
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    given = iter(_Rerun.apply(work, tensors, *starts, *work.inputs()))
    leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    for leaf, is_global in zip(leaves, marked, strict=True):
        if is_global:
            marks.mark(leaf)
    return tree_unflatten(leaves, spec)


class _Rerun(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: Work, tensors: Sequence[torch.Tensor], *inputs: torch.Tensor) -> Any:
        """The outputs *tensors*, made from *inputs*."""
        ctx.mark_non_differentiable(*(each for each in tensors if not each.is_floating_point()))
        ctx.set_materialize_grads(False)
        ctx.work, ctx.given = work, len(inputs)
        return tuple(tensors)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        """The gradients of the parameters and of the arguments."""
        work = ctx.work
        if torch.is_grad_enabled():
            raise RequestError(
                f"a gradient of a gradient runs through {work.name}, which is computed in micro-batches and has none;"
                " use --layout micro_batches=1"
            )
        if [parameter._version for parameter in work.parameters] != work.versions:
            raise RequestError(
                f"a weight of {work.name} was changed between its forward and its backward, so the micro-batches cannot"
                " be computed again; call backward before optimizer.step()"
            )
        if all(grad is None for grad in grads):
            return (None,) * (2 + ctx.given)
        of_parameters, of_inputs = (work.staged.back if work.staged else back)(work, grads)
        return (None, None, *(of_parameters or [None]), *of_inputs)


def _forward(work: Work) -> Outputs:
    found = [_piece(work, piece) for piece in work.pieces]
    remember_weights(work)
    values = settled(work, found)
    if is_unsettled(work, found, values):
        with state.chance_kept():
            found = [_piece(work, piece, state_of) for piece, state_of in zip(work.pieces, work.chances, strict=True)]
    return put_together(work, found, values)


def remember_weights(work: Work) -> None:
    """Note what is trained in *work*, and at which values."""
    work.parameters[:] = work.trained()
    work.versions[:] = [parameter._version for parameter in work.parameters]


def settled(work: Work, found: Sequence[Found]) -> list[torch.Tensor | None]:
    """The global value of each output that is a loss, given the outputs *found* of all pieces; None for others.

    Raises RequestError for pieces that are unlike.
    """
    if any(spec != found[0][1] for _, spec in found):
        raise tree.refusal(work.name, "it returns something else from piece to piece")
    has_loss = _settled(work)
    by_leaf = zip(*(leaves for leaves, _ in found), strict=True)
    return [work.sums.value_of(parts) if has_loss else None for parts in by_leaf]


def is_unsettled(work: Work, found: Sequence[Found], values: Sequence[Any]) -> bool:
    """Whether an output is a number made from a loss: it is known when the pieces are computed with the losses."""
    if not work.sums.has_loss or len(work.pieces) == 1:
        return False
    return any(_is_number(leaf) and value is None for leaf, value in zip(found[0][0], values, strict=True))


def put_together(work: Work, found: Sequence[Found], values: Sequence[torch.Tensor | None]) -> Outputs:
    """The outputs of all pieces in one, given those *found* of each, and the *values* of the losses."""
    work.sums.let_go()
    if len(found) == 1:
        leaves, spec = found[0]
        return leaves, spec, [isinstance(leaf, torch.Tensor) and marks.is_marked(leaf) for leaf in leaves]
    by_leaf = list(zip(*(leaves for leaves, _ in found), strict=True))
    leaves = [
        tree.joined(parts, work.pieces, work.name) if value is None else value.to(parts[0].dtype)
        for parts, value in zip(by_leaf, values, strict=True)
    ]
    return leaves, found[0][1], [value is not None for value in values]


def _settled(work: Work) -> bool:
    try:
        return work.sums.settle()
    except ValueError:
        raise tree.refusal(work.name, "its pieces do not compute the same losses") from None


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() == 0


def _piece(work: Work, piece: Range, chance: state.Chance | None = None) -> tuple[list[Any], TreeSpec]:
    """The outputs of one piece; *chance* is what it drew from when it was computed before."""
    if chance is None:
        work.chances.append(state.chance())
    else:
        state.put_back(chance)
    return outputs(work, piece, [cut(work, leaf, piece) for leaf in work.leaves])


def cut(work: Work, leaf: Any, piece: Range) -> Any:
    """The rows of an argument that belong to *piece*."""
    return leaf[slice(*piece)] if work.is_cut(leaf) else leaf


def outputs(work: Work, piece: Range, leaves: Sequence[Any]) -> tuple[list[Any], TreeSpec]:
    """The outputs of *piece*, whose arguments are *leaves*, and their containers."""
    args, kwargs = tree_unflatten(leaves, work.spec)
    work.sums.begin(work.weight(piece))
    with work.inside(), losses.collecting(work.sums):
        return tree_flatten(work.call(*args, **kwargs))


def back(work: Work, grads: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Each piece computed again, and back; the sums over the pieces for parameters, and for the arguments."""
    total: list[Any] = [None] * len(work.parameters)
    of_inputs: list[Any] = [None] * len(work.inputs())
    waiting = list(zip(work.pieces, work.chances, strict=True))
    with state.chance_kept(), trained_as_then(work.parameters), torch.no_grad():
        while waiting:
            piece, chance = waiting.pop(0)
            state.put_back(chance)
            found = _attempt(work, piece, grads)
            if isinstance(found, torch.OutOfMemoryError):
                if piece[1] - piece[0] < 2:
                    raise found
                work.on_full(found)
                waiting[:0] = [(half, chance) for half in tree.halves(piece)]
                continue
            for place, grad in enumerate(found[0]):
                total[place] = _added(total[place], grad)
            for place, grad in enumerate(found[1]):
                of_inputs[place] = placed(work, of_inputs[place], grad, place, piece)
    return total, of_inputs


def _attempt(work: Work, piece: Range, grads: Sequence[Any]) -> Any:
    """What `_piece_back` finds, or the error of a piece that does not fit, without what it left in memory."""
    try:
        return _piece_back(work, piece, grads)
    except torch.OutOfMemoryError as full:
        return full.with_traceback(None)


def _piece_back(work: Work, piece: Range, grads: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Gradients of parameters and arguments that come through *piece*."""
    own = [own_leaf(work, leaf, piece) for leaf in work.leaves]
    inputs = [mine for leaf, mine in zip(work.leaves, own, strict=True) if goes_to(leaf)]
    with state.computed_as(work.autocasts):
        leaves, _ = outputs(work, piece, own)
    outs, seeds = seeded(work, piece, leaves, grads)
    if not outs:
        return [], []
    if work.nested is not None:
        work.nested(outs, seeds)
        return [], [mine.grad for mine in inputs]
    found = torch.autograd.grad(outs, [*work.parameters, *inputs], seeds, allow_unused=True)
    return list(found[: len(work.parameters)]), list(found[len(work.parameters) :])


def seeded(
    work: Work, piece: Range, leaves: Sequence[Any], grads: Sequence[Any]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Those of the outputs *leaves* of *piece* that a gradient comes to, and what of *grads* comes."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    pairs = [
        (out, grad * work.weight(piece) if grad.dim() == 0 else grad[slice(*piece)])
        for out, grad in zip(tensors, grads, strict=True)
        if grad is not None and out.requires_grad
    ]
    return [out for out, _ in pairs], [seed for _, seed in pairs]


def goes_to(leaf: Any) -> bool:
    """Whether a gradient goes to an argument."""
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad


def own_leaf(work: Work, leaf: Any, piece: Range) -> Any:
    """The rows of an argument, at the beginning of a graph of their own."""
    mine = cut(work, leaf.data if isinstance(leaf, torch.Tensor) else leaf, piece)
    return mine.clone().requires_grad_() if goes_to(leaf) else mine


def _added(total: Any, grad: Any) -> Any:
    if grad is None or total is None:
        return total if grad is None else grad
    return total.add_(grad)


def placed(work: Work, total: Any, grad: Any, place: int, piece: Range) -> Any:
    """*total*, the gradient of the argument at *place*, with that of *piece*."""
    if grad is None:
        return total
    leaf = work.inputs()[place]
    if not work.is_cut(leaf):
        return _added(total, grad)
    total = torch.zeros_like(leaf.data) if total is None else total
    total[slice(*piece)] = grad
    return total


@contextmanager
def trained_as_then(parameters: Sequence[torch.Tensor]) -> Iterator[None]:
    """*parameters* take a gradient, as they did in forward, and the script's hooks on them wait for the sum."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    hooked = [(hooks, dict(hooks)) for each in parameters if (hooks := each._backward_hooks)]
    for parameter in frozen:
        parameter.requires_grad_(True)
    for hooks, _ in hooked:
        hooks.clear()
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for hooks, own in hooked:
            hooks.update(own)


def flattened(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], TreeSpec]:
    """Arguments without their containers, and the containers."""
    leaves, spec = tree_flatten((args, kwargs))
    return tuple(leaves), spec


def without_cache(root: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a Hugging Face model without the cache for generating, which has no use in training."""
    if getattr(getattr(root, "config", None), "use_cache", False) is True and "use_cache" not in kwargs:
        return {**kwargs, "use_cache": False}
    return kwargs
