"""The gradients of all ranks, averaged while backward still runs.

Parameters are put into buckets in the reverse of their order, about the order in which backward finishes them. As soon
as all gradients of a bucket are there, and the buckets before it are under way, its average starts. All ranks send the
same buckets in the same order in every backward, whichever parameters their rows happened to touch.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import ReferenceType

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakIdRef

from ...errors import RequestError
from .. import accelerator, group
from . import layout, under_way
from .by_hand import ByHand
from .counts import rows
from .hooked import Hooked
from .known import Known
from .share import Share
from .under_way import Sums

if TYPE_CHECKING:
    from .seen import Seen

_BUCKET_BYTES = 25 * 2**20
_FIRST_BUCKET_BYTES = 2**20
"""The first bucket is small, so that the network starts early; both sizes are those of torch's own DDP."""
_IN_CACHE = 2**20
"""Numbers that a second pass of the CPU finds in its cache."""


class Bucket:
    """Some parameters of one type whose gradients travel together."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.parameters = parameters
        mine = [local(parameter) for parameter in parameters]
        sizes = [part.numel() for part in mine]
        # One number per parameter more: whether this rank's backward reached it. And two for a loss that travels along.
        self.flat = mine[0].new_zeros(sum(sizes) + len(sizes) + 2)
        *parts, self.reached, self._loss = self.flat.split([*sizes, len(sizes), 2])
        self.views = [part.view_as(own) for part, own in zip(parts, mine, strict=True)]
        self.missing = 0
        self.work: dist.Work | None = None
        self.divisor: int | torch.Tensor = 1
        self._is_quick = accelerator.is_gpu() or self.flat.numel() < _IN_CACHE
        """Whether one division of all and one copy take less time than a division for each parameter."""

    def begin(self) -> None:
        """Get ready for one backward; the one before may have raised, and nobody took its average."""
        if self.work is not None:
            self.work.wait()
        self.missing, self.work = len(self.parameters), None

    def send(self, loss: Sums | None = None) -> None:
        """Start the average of what the gradients are now; the sums of *loss* travel along if they can."""
        with torch.no_grad():
            grads = [parameter.grad for parameter in self.parameters]
            found = [
                torch.zeros_like(view) if grad is None else local(grad)
                for grad, view in zip(grads, self.views, strict=True)
            ]
            reached = self.flat.new_tensor([grad is not None for grad in grads])
            sums = None if loss is None else loss.board(self.flat.dtype, self._carried)
            sums = torch.zeros_like(self._loss) if sums is None else sums.to(self.flat)
            torch.cat([*(grad.reshape(-1) for grad in found), reached, sums], out=self.flat)
        self.work, self.divisor = group.start_average(self.flat)

    def _carried(self) -> torch.Tensor:
        """The sums over all ranks that travelled along."""
        if self.work is not None:
            self.work.wait()
        return self._loss.double() * (group.data_ranks() / self.divisor)

    def receive(self, correction: torch.Tensor | None = None) -> None:
        """Wait for the average and make it, times *correction*, the gradient; what no rank reached stays without."""
        if self.work is not None:
            self.work.wait()
        with torch.no_grad():
            if correction is not None:
                self.divisor = self.divisor / correction.to(self.flat.device)
            grads = [parameter.grad for parameter in self.parameters]
            if self._is_quick and all(grad is not None for grad in grads):
                self.flat.div_(self.divisor)
                torch._foreach_copy_([local(grad) for grad in grads], self.views)
            else:
                self._divide(grads)
        self.work = None

    def _divide(self, grads: Sequence[torch.Tensor | None]) -> None:
        for place, (parameter, grad, view) in enumerate(zip(self.parameters, grads, self.views, strict=True)):
            if grad is not None:
                torch.div(view, self.divisor, out=local(grad))
            elif self.reached[place] > 0:
                parameter.grad = like(view / self.divisor, parameter)


class Gradients:
    """The parameters that the script trains, the same on all ranks, and the average of their gradients."""

    def __init__(self, seen: "Seen") -> None:
        self.seen = seen
        self.parameters: list[torch.Tensor] = []
        self.buckets: list[Bucket] = []
        self.overlaps = True
        self._bucket_of: dict[int, Bucket] = {}
        self._adopted = Known()
        self._heard = Known()
        self._late: set[int] = set()
        self._frozen: list[ReferenceType[torch.Tensor]] = []
        """Parameters of modules that got no gradient as yet; the script may let them train later."""
        self._sent = 0
        self._early: Sums | None = None
        self._correction: torch.Tensor | None = None
        self.by_hand = ByHand()
        self.hooked = Hooked()
        self._optimizers = 0
        self._mine: list[torch.Tensor] = []
        """Those of the parameters that are averaged here."""
        self._others: list[ReferenceType[torch.Tensor]] = []
        """The parameters of modules that no optimizer has."""
        self._may_be_late = False
        """Whether one of these may get a gradient."""
        self._is_whole = True
        """Whether no parameter is in parts."""
        self._trained: tuple[bool, ...] = ()

    def adopt(self, parameters: Iterable[torch.Tensor]) -> None:
        """Give *parameters* that are new the values that rank 0 has."""
        with torch.no_grad():
            for parameter in parameters:
                if parameter not in self._adopted and not parameter.is_meta and is_whole(parameter):
                    group.from_rank_0(parameter.data)
                    self._adopted.add(parameter)

    def refresh(self, *, again: bool = False) -> None:
        """Look which parameters the script's optimizers have, if there are new ones or *again* says so."""
        if self._optimizers == self.seen.optimizers and not again:
            return
        self._optimizers, self._trained = self.seen.optimizers, ()
        # What the script has let go of must be gone on all ranks, whenever each would have noticed by itself.
        gc.collect()
        unique = {id(parameter): parameter for parameter in self.seen.trained()}
        self.adopt(unique.values())
        self.parameters = [parameter for parameter in unique.values() if parameter.dtype.is_floating_point]
        self.parameters += [each for each in self.by_hand.found if id(each) not in unique]
        self._sort()

    def _sort(self) -> None:
        """Tell once what each step would have to ask of every parameter."""
        registered = self.seen.registered()
        trained = {id(parameter) for parameter in self.parameters}
        self._mine = [parameter for parameter in self.parameters if is_ours(parameter)]
        self._others = [WeakIdRef(each) for each in registered if id(each) not in trained]
        self._is_whole = all(is_whole(each) for each in (*self.parameters, *registered))
        self._ask_for_late()

    def begin(self, roots: Sequence[torch.Tensor], share: Share | None, *, whole: bool) -> None:
        """Get ready for one backward from *roots*, of a batch cut as *share* says; *whole*: no weight is in parts."""
        self.refresh()
        if group.data_ranks() == 1:  # whose gradients are the global ones
            return
        if share is not None and self.by_hand.look(roots, self._known, share, whole=whole):
            self.refresh(again=True)
        if new := self.seen.newly_registered():
            self._sort()
        trained = tuple(parameter.requires_grad for parameter in self._mine)
        if trained != self._trained:
            self._trained = trained
            self._fill_buckets([parameter for parameter in self._mine if parameter.requires_grad])
        heard = len(self._frozen) + len(new)
        self._frozen = self._unheard([*(WeakIdRef(each) for each in new), *self._frozen])
        if len(self._frozen) != heard:
            self._ask_for_late()
        for bucket in self.buckets:
            bucket.begin()
        self._sent = 0
        self.hooked.begin(self._known())

    def _known(self) -> list[torch.Tensor]:
        return [*self.parameters, *self.seen.registered()]

    @contextmanager
    def early(self, sums: Sums | None, *, is_check: bool) -> Iterator[None]:
        """Let the backward inside begin before *sums* are there; when it cannot, wait for all sums first.

        The correction at the end is for all of a gradient, so there must be none yet, and none that others average.
        """
        self._early = sums if sums is not None and self._are_new() else None
        if self._early is None:
            under_way.arrive()
        else:
            self._early.is_early = True
        try:
            yield
        finally:
            self.hooked.stop(is_check=is_check)
            if self._early is not None:
                self._early.is_early = False
                self._early = None

    def _are_new(self) -> bool:
        if rows.LEAVES or not self._is_whole:  # whose gradient is nobody's to correct
            return False
        others = [reference() for reference in self._others]
        return all(each is None or each.grad is None for each in (*self.parameters, *others))

    def finish(self, *, is_check: bool = False) -> None:
        """Send what is left after one backward, and make the averages the gradients; a check calls no hooks on them."""
        self._send(len(self.buckets))
        self._correction = self._early.correction() if self._early is not None else None
        under_way.arrive()
        for bucket in self.buckets:
            bucket.receive(self._correction)
        if self._may_be_late and (late := self._late_anywhere()):
            self._admit(late)
        self.hooked.finish(calls=not is_check)

    def _ask_for_late(self) -> None:
        others = [layout.now(each) for reference in self._others if (each := reference()) is not None]
        self._may_be_late = any(each in self._heard for each in others)

    def _late_anywhere(self) -> list[torch.Tensor]:
        """The parameters of no optimizer that got a gradient on some rank; rows may lead to others on each."""
        others = [None if (each := reference()) is None else layout.now(each) for reference in self._others]
        came = group.total(torch.tensor([float(id(each) in self._late) for each in others]))
        self._late.clear()
        found = {id(each): each for each, count in zip(others, came, strict=True) if each is not None and count > 0}
        return list(found.values())

    def _admit(self, late: list[torch.Tensor]) -> None:
        """Take in parameters of no optimizer, which got a gradient all the same: the script updates them by hand."""
        self.parameters += late
        self._sort()
        for part in _parts(late):
            bucket = Bucket(part)
            bucket.send()
            bucket.receive(self._correction)

    def _fill_buckets(self, parameters: Sequence[torch.Tensor]) -> None:
        self.buckets = [Bucket(part) for part in _parts(parameters)]
        self._bucket_of = {id(parameter): bucket for bucket in self.buckets for parameter in bucket.parameters}
        for parameter in parameters:
            _check_place(parameter)
            self._listen(parameter)

    def _unheard(self, references: list[ReferenceType[torch.Tensor]]) -> list[ReferenceType[torch.Tensor]]:
        """Listen to those that train, and return the others."""
        alive = [(each, parameter) for each in references if (parameter := each()) is not None]
        for _, parameter in alive:
            self._listen(parameter)
        return [each for each, parameter in alive if not layout.now(parameter).requires_grad]

    def _listen(self, parameter: torch.Tensor) -> None:
        parameter = layout.now(parameter)
        if is_ours(parameter) and parameter.requires_grad and parameter not in self._heard:
            with torch._C.DisableTorchFunctionSubclass():  # a script may not, on a part
                parameter.register_post_accumulate_grad_hook(self._arrived)
            self._heard.add(parameter)

    def _arrived(self, parameter: torch.Tensor) -> None:
        grad = parameter.grad
        if grad is not None and grad.is_sparse:
            raise RequestError("a sparse gradient cannot be averaged over ranks; make the embedding with sparse=False")
        bucket = self._bucket_of.get(id(parameter))
        if bucket is None:
            self._late.add(id(parameter))
            return
        bucket.missing -= 1
        if bucket.work is not None:
            raise RequestError(
                "a parameter got its gradient twice in one backward, which checkpoint(use_reentrant=True) does;"
                " write use_reentrant=False"
            )
        if bucket.missing > 0:
            return
        ready = self._sent
        while self.overlaps and ready < len(self.buckets) and self.buckets[ready].missing <= 0:
            ready += 1
        self._send(ready)

    def _send(self, end: int) -> None:
        for bucket in self.buckets[self._sent : end]:
            bucket.send(self._early)
        self._sent = max(self._sent, end)


def is_whole(parameter: torch.Tensor) -> bool:
    """Whether this rank has all of *parameter*."""
    return not isinstance(layout.now(parameter), DTensor)


def is_ours(parameter: torch.Tensor) -> bool:
    """Whether *parameter* is the same on all data ranks; FSDP averages what it has spread itself."""
    mine = layout.now(parameter)
    return not isinstance(mine, DTensor) or mine.device_mesh.mesh_dim_names in (("tp",), ("pp",))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What of *tensor* is on this rank."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def like(part: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """*part*, of this rank, spread as *parameter* is."""
    if not isinstance(parameter, DTensor):
        return part
    words = {"run_check": False, "shape": parameter.shape, "stride": parameter.stride()}
    return DTensor.from_local(part, parameter.device_mesh, parameter.placements, **words)


def _parts(parameters: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """*parameters* from the last to the first, cut where the type changes or a bucket is full."""
    parts: list[list[torch.Tensor]] = []
    size, kind, limit = 0, None, _FIRST_BUCKET_BYTES
    for parameter in reversed(parameters):
        if not parts or kind != (parameter.dtype, parameter.device) or size >= limit:
            limit = _BUCKET_BYTES if parts else _FIRST_BUCKET_BYTES
            parts.append([])
            size, kind = 0, (parameter.dtype, parameter.device)
        parts[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return parts


def _check_place(parameter: torch.Tensor) -> None:
    mine = accelerator.device()
    if parameter.device != mine:
        raise RequestError(
            f"a trained parameter is on {parameter.device}, the device of this rank is {mine};"
            " write 'cuda' instead of a numbered device, and move the model there before training"
        )
