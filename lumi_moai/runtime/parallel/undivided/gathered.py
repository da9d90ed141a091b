"""What every rank has whole, and the rows of it that a rank computes with: from one to the other, with gradients.

Outside of a model all ranks compute the same with whole tensors, so a gradient there is the whole truth on each of
them. Inside, a rank's gradient is of its rows, times the number of ranks, because gradients of weights are averaged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from ... import group
from ..share import bounds


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where the rows of a tensor are, and which of them are this rank's."""

    total: int
    """Rows of the batch."""
    ranks: int
    rank: int
    dim: int = 0
    each: int = 1
    """How many numbers in a row along *dim* belong to one row of the batch."""

    def part_of(self, rank: int) -> tuple[int, int]:
        """Begin and length of what *rank* has along the dimension."""
        start, end, _ = bounds(self.total, rank, self.ranks)
        return start * self.each, (end - start) * self.each

    def mine(self, whole: torch.Tensor) -> torch.Tensor:
        """This rank's rows of *whole*, a view of it."""
        return whole.narrow(self.dim, *self.part_of(self.rank))


def rows_of(whole: torch.Tensor, cut: Cut) -> torch.Tensor:
    """This rank's rows of *whole*; the gradient that comes back is that of all rows."""
    return _Rows.apply(whole, cut) if whole.requires_grad else cut.mine(whole)


def whole_of(rows: torch.Tensor, cut: Cut) -> torch.Tensor:
    """The rows of all ranks in the place of *rows*, this rank's; all ranks come here together."""
    return _Whole.apply(rows, cut)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, cut: Cut) -> torch.Tensor:
        ctx.cut = cut
        return cut.mine(whole).clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Whole.apply(gradient, ctx.cut) / ctx.cut.ranks, None


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, cut: Cut) -> torch.Tensor:
        ctx.cut = cut
        return _gathered(rows, cut)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Rows.apply(gradient, ctx.cut) * ctx.cut.ranks, None


def _gathered(rows: torch.Tensor, cut: Cut) -> torch.Tensor:
    lengths = [cut.part_of(rank)[1] for rank in range(cut.ranks)]
    own = rows.movedim(cut.dim, 0)
    travelling = group.reachable(own.to(torch.uint8) if rows.dtype == torch.bool else own).contiguous()
    padded = travelling
    if lengths[cut.rank] < max(lengths):
        padded = travelling.new_zeros((max(lengths), *travelling.shape[1:]))
        padded[: len(travelling)] = travelling
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded, group=group.data_group())
    whole = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
    return whole.to(rows.device, rows.dtype).movedim(0, cut.dim).contiguous()


class Scaled(torch.autograd.Function):
    """A number as it is, with its gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, number: torch.Tensor, factor: float) -> torch.Tensor:
        """*number*."""
        ctx.factor = factor
        return number.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient times the factor."""
        return gradient * ctx.factor, None


class Waiting(torch.Tensor):
    """Rows that are put together with those of the other ranks as soon as the script uses them, and else never.

    A language model that computes its loss gives the logits as well, which are large, and which nobody looks at.
    """

    cut: Cut
    found: list[torch.Tensor]
    """The whole tensor, once it is there."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Do *func* with whole tensors, unless it asks for a shape only."""
        if func in _FACTS:
            return _FACTS[func](args[0], *args[1:], **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            if func in _PLAIN:
                return func(*args, **(kwargs or {}))
        args, kwargs = arrived((args, kwargs or {}))
        return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return arrive(self).__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return arrive(self).__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return arrive(self).__repr__(tensor_contents=tensor_contents)

    def __format__(self, spec: str) -> str:
        return arrive(self).__format__(spec)


def waiting(rows: torch.Tensor, cut: Cut) -> torch.Tensor:
    """*rows*, to be put together with those of the other ranks when they are used."""
    made = rows.as_subclass(Waiting)
    made.cut, made.found = cut, []
    return made


def arrive(tensor: Waiting) -> torch.Tensor:
    """*tensor* with the rows of all ranks."""
    if not tensor.found:
        # With its graph, whoever asks first.
        with torch._C.DisableTorchFunctionSubclass(), torch.inference_mode(mode=False), torch.enable_grad():
            tensor.found.append(whole_of(tensor.as_subclass(torch.Tensor), tensor.cut))
    return tensor.found[0]


def arrived(value: Any) -> Any:
    """*value*, a container or a tensor, with whole tensors in the place of those that wait."""
    return tree_map(lambda leaf: arrive(leaf) if type(leaf) is Waiting else leaf, value)


def _shape(tensor: Waiting) -> torch.Size:
    with torch._C.DisableTorchFunctionSubclass():
        sizes = list(tensor.shape)
    sizes[tensor.cut.dim] = tensor.cut.total * tensor.cut.each
    return torch.Size(sizes)


def _size(tensor: Waiting, dim: int | None = None) -> Any:
    return _shape(tensor) if dim is None else _shape(tensor)[dim]


_FACTS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.shape.__get__: _shape,
    torch.Tensor.size: _size,
    torch.Tensor.numel: lambda tensor: _shape(tensor).numel(),
    torch.Tensor.nelement: lambda tensor: _shape(tensor).numel(),
    torch.Tensor.__len__: lambda tensor: _shape(tensor)[0],
}
"""What is known of the whole tensor without it."""
_PLAIN = {
    *(
        getattr(torch.Tensor, name).__get__
        for name in ("dtype", "device", "layout", "ndim", "requires_grad", "is_leaf")
    ),
    *(getattr(torch.Tensor, name).__get__ for name in ("grad_fn", "is_cuda", "is_meta", "is_sparse")),
    *(getattr(torch.Tensor, name) for name in ("dim", "is_floating_point", "is_complex", "element_size")),
}
"""What is alike for rows and for all of them."""
