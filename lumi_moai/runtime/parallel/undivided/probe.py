"""The first call of a kind, computed apart: for all rows, for this rank's, and for this rank's among other ones.

A model that keeps rows apart gives the same for a row whichever rows are beside it. So what it gives for a rank's rows
must be what it gives for them among all rows, with losses over the rows of all ranks; and it may not move at all when
the other rows are others. Weights are moved a little meanwhile: a part that begins at zero hides what it mixes.
"""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.weak import WeakIdRef

from ... import group
from .. import layout, roots
from ..hooked import is_scripts
from ..micro import obstacles
from ..selfcheck import quiet, rounding
from ..selfcheck.snapshot import Snapshot
from . import outputs
from .arguments import Given
from .gathered import Cut

if TYPE_CHECKING:
    from ..engine import Engine

_FAR = 0.1
_LEAST = 0.02
"""How far weights are moved: a tenth of what each is, and a little more, because it may be nothing."""
_UNMOVED = 1e-6


Ran = tuple[Any, list[torch.Tensor], list[Any]]
"""What a call returns, what it leaves behind, and what the model holds afterwards."""


class Unlike(Exception):
    """The model's call cannot be cut; the message says why."""


def form_of(engine: "Engine", root: nn.Module, call: roots.Call, given: Given, cut: Cut) -> outputs.Form | str:
    """How what *root* gives for each rank's rows goes together, or why the call must stay whole; alike on all ranks."""
    place = engine.settle()
    compiled = getattr(root, "_orig_mod", None)  # what a trial computes is not worth compiling
    call = _laid_out(root, call if compiled is None else compiled._call_impl, layout.callers(place))
    sums = _of_all_ranks(given.checksum())
    if len(set(sums)) > 1:
        return "the ranks have unlike batches, drawn from random numbers of their own"
    try:
        _look(root)
        found: outputs.Form | str = _compare(engine, root, call, given, cut)
    except Unlike as reason:
        found = str(reason)
    return next((each for each in _of_all_ranks(found if isinstance(found, str) else None) if each), found)


def _laid_out(root: nn.Module, call: roots.Call, callers: Any) -> roots.Call:
    return lambda *args, **kwargs: roots.through(callers, root, call, args, kwargs)


def _of_all_ranks(mine: Any) -> list[Any]:
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    return every


def _look(root: nn.Module) -> None:
    """Raise Unlike for what does not show in the outputs."""
    for module in root.modules():
        hooks = [*module._backward_hooks.values(), *module._backward_pre_hooks.values()]
        if any(map(is_scripts, hooks)):
            raise Unlike("it has a hook on its gradients")
    for name, tensor in obstacles.attributes(root):
        if tensor.requires_grad and tensor.is_leaf and not isinstance(tensor, nn.Parameter):
            raise Unlike(f"its {name} is trained and is no parameter")


def _compare(engine: "Engine", root: nn.Module, call: roots.Call, given: Given, cut: Cut) -> outputs.Form:
    """The form; raises Unlike, on this rank alone or on all."""
    with _apart(engine, root) as run:
        whole, kept, state = run(call, *given.each_as(torch.clone), None)
        # Once without what the ranks do together, in which nobody may be missing.
        _, reason = _tried(run, call, given, cut, None)
        _agree(reason)
        (mine, own_kept, own_state), reason = _tried(run, call, given, cut, engine.undivided.share_of(cut))
        _agree(reason)
        found = outputs.form(whole, mine, cut)
        if isinstance(found, str):
            raise Unlike(found)
        has_norm = any(isinstance(module, _BatchNorm) and module.training for module in root.modules())
        if not _is_same(state, own_state) or any(not any(_is_same(each, one) for one in kept) for each in own_kept):
            raise Unlike("its forward keeps something of the batch")
        if not has_norm:
            _stay(whole, run(call, *given.each_as(lambda tensor: _alone(tensor, cut)), None)[0], found, cut)
    return found


def _tried(run: Any, call: roots.Call, given: Given, cut: Cut, share: Any) -> tuple[Any, str | None]:
    try:
        return run(call, *given.part(cut), share), None
    except Unlike as reason:
        return (None, [], []), str(reason)


def _agree(reason: str | None) -> None:
    for each in _of_all_ranks(reason):
        if each:
            raise Unlike(each)


def _alone(whole: torch.Tensor, cut: Cut) -> torch.Tensor:
    """*whole* with this rank's rows in the place of all others."""
    start, rows = cut.part_of(cut.rank)
    order = (torch.arange(cut.total, device=whole.device) - start) % rows + start
    return whole.detach()[order]


def _stay(whole: Any, other: Any, found: outputs.Form, cut: Cut) -> None:
    """Raise Unlike when this rank's rows of *whole* are not those of *other*, which had other rows beside them."""
    for first, second, rows in zip(tree_leaves(whole), tree_flatten(other)[0], found.leaves, strict=True):
        if rows is not None:
            at = Cut(total=cut.total, ranks=cut.ranks, rank=cut.rank, dim=rows.dim, each=rows.each)
            mine, moved = at.mine(first).double(), at.mine(second).double()
            if bool(((mine - moved).abs().nan_to_num() > _UNMOVED * mine.abs().nan_to_num().max()).any()):
                raise Unlike("a row of what it returns depends on other rows")


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, list):
        return len(first) == len(second) and all(_is_same(*both) for both in zip(first, second, strict=True))
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return type(first) is type(second) and first == second
    return first.shape == second.shape and outputs.is_close(first, second)


def _state(root: nn.Module) -> list[Any]:
    """What the modules of *root* hold beside their weights."""
    tensors = [*root.buffers(), *(tensor for _, tensor in obstacles.attributes(root))]
    numbers = [each for part in root.modules() for each in vars(part).values() if isinstance(each, (int, float))]
    return [*(each.detach().clone() for each in tensors if not isinstance(each, nn.Parameter)), *numbers]


@contextmanager
def _apart(engine: "Engine", root: nn.Module) -> Iterator[Callable[..., Ran]]:
    """Runs calls of *root* of which nothing stays, and gives what they return and what they leave behind."""
    buffers = [(each, each.clone()) for each in root.buffers()]
    main = vars(sys.modules["__main__"])

    def run(call: roots.Call, args: tuple, kwargs: dict[str, Any], share: Any) -> Ran:
        before = Snapshot([main], [root])
        try:
            noting = _Noting(lambda: (*root.parameters(), *engine.seen.registered(), *engine.gradients.parameters))
            with quiet.silent([root]), engine.undivided.inside(share), noting:
                return *_computed(call, args, kwargs, noting), _state(root)
        finally:
            before.put_back()
            with torch.no_grad():
                for buffer, values in buffers:
                    buffer.copy_(values)

    with ExitStack() as stack:
        for context in (
            engine.unjournaled(),
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),
            rounding.changed(_floating(root), _move, 1),
        ):
            stack.enter_context(context)
        yield run


def _computed(
    call: roots.Call, args: tuple, kwargs: dict[str, Any], noting: "_Noting"
) -> tuple[Any, list[torch.Tensor]]:
    given = [(each, each._version) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    try:
        result = call(*args, **kwargs)
    except Exception as error:  # BLE001, on purpose: the script's own code may raise anything
        raise Unlike(f"its rows cannot be computed by themselves ({type(error).__name__})") from None
    if any(each._version != version for each, version in given):
        raise Unlike("its forward edits what it is given")
    if noting.is_led_outside:
        raise Unlike("its forward computes with a tensor that is trained and is no parameter of it")
    return result, noting.left((result, args, kwargs))


class _Noting(quiet.Steady):
    """Notes the tensors that are made, so that those are known which somebody keeps; all noise is the same."""

    def __init__(self, weights: Callable[[], Iterable[torch.Tensor]]) -> None:
        super().__init__()
        self._weights = weights
        """All whose gradients are averaged over the ranks."""
        self._known: set[int] = set()
        self._made: list[ReferenceType[torch.Tensor]] = []
        self.is_led_outside = False
        """Whether a gradient goes to a tensor that is neither given nor a weight."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do *func*, and note what it gives."""
        self._look(args, kwargs)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        passed = {id(each) for each in tree_leaves((args, kwargs))}  # what is edited in place was there before
        if func.namespace == "c10d":  # what is sent the network's thread may hold for a moment longer
            self._made = [each for each in self._made if id(each()) not in passed]
        made = (each for each in tree_leaves(result) if isinstance(each, torch.Tensor))
        # The network holds on to what it sent, and weights that were gathered lose their memory.
        if not sys._getframe(1).f_globals.get("__name__", "").startswith((group.__name__, "torch.distributed.")):
            self._made += [WeakIdRef(each) for each in made if id(each) not in passed]
        return result

    def _look(self, args: Any, kwargs: Any) -> None:
        every = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.requires_grad]
        # A view that was made without gradients says that it needs one, as what it looks into does.
        trained = {id(each if each._base is None else each._base) for each in every}
        if not trained <= self._known:
            # Once more each time: weights that are in parts are whole for a while, as other tensors.
            self._known.update(id(one) for each in self._weights() for one in (each, layout.now(each)))
            self.is_led_outside |= not trained <= self._known

    def left(self, known: Any) -> list[torch.Tensor]:
        """Those that are still there, and are no part of *known*."""
        gc.collect()  # what only a cycle holds is nobody's, whenever the collector would notice
        passed = {_storage(each) for each in tree_leaves(known) if isinstance(each, torch.Tensor)}
        alive = {id(each): each for each in (reference() for reference in self._made) if each is not None}
        there = (each for each in alive.values() if each.untyped_storage().size() > 0)
        return [each.clone() for each in there if _storage(each) not in passed]


def _floating(root: nn.Module) -> list[torch.Tensor]:
    return [each for each in root.parameters() if each.is_floating_point()]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _move(weight: torch.Tensor, chance: torch.Generator) -> None:
    """A little off."""
    noise = [torch.rand(weight.shape, generator=chance).to(weight) * 2 - 1 for _ in range(2)]
    weight.add_(weight * noise[0] * _FAR + noise[1] * _LEAST)
