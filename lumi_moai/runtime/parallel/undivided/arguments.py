"""The arguments of a model's call: whether they can be rows of a batch, and this rank's part of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ..counts import OfAll
from .gathered import Cut, Waiting, arrive, rows_of

_WORDS = (type(None), bool, int, float, str, torch.dtype, torch.device)
"""What a call may be given besides tensors, because it has no rows."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """The arguments of one call."""

    leaves: list[Any]
    spec: TreeSpec
    rows: int
    """The first size of all tensors."""

    @property
    def kind(self) -> tuple:
        """Alike for calls that a model computes in the same way; sizes may differ."""
        return (str(self.spec), *map(_kind, self.leaves))

    @property
    def has_gradient(self) -> bool:
        """Whether a gradient goes back through the arguments."""
        return any(leaf.requires_grad for leaf in self.leaves if isinstance(leaf, torch.Tensor))

    def part(self, cut: Cut) -> tuple[tuple, dict[str, Any]]:
        """Positional and named arguments with this rank's rows; a tensor that comes twice is one tensor again."""
        return self.each_as(lambda tensor: rows_of(tensor, cut))

    def each_as(self, made: Any) -> tuple[tuple, dict[str, Any]]:
        """The arguments with what *made* makes of each tensor that has rows."""
        found = {id(leaf): made(leaf) for leaf in self.leaves if _has_rows(leaf)}
        args, kwargs = tree_unflatten([found.get(id(leaf), leaf) for leaf in self.leaves], self.spec)
        return args, kwargs

    def checksum(self) -> str:
        """Of all numbers that are given, and of how they are arranged."""
        found = hashlib.sha256(repr(self.kind).encode())
        for leaf in self.leaves:
            if isinstance(leaf, torch.Tensor):
                flat = leaf.detach().cpu().contiguous().view(-1)
                found.update(repr(tuple(leaf.shape)).encode() + flat.view(torch.uint8).numpy().tobytes())
            else:
                found.update(repr(leaf).encode())
        return found.hexdigest()


def read(args: tuple, kwargs: dict[str, Any], ranks: int) -> Given | str:
    """What a call is given, of which each of *ranks* can have rows; else why that cannot be."""
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if _has_rows(leaf)]
    sizes = {leaf.shape[0] for leaf in tensors}
    if not all(_is_known(leaf) for leaf in leaves):
        return "it is given something else than plain tensors"
    if len(sizes) != 1:
        return "the tensors that it is given have not one first size"
    rows = sizes.pop()
    if any(_is_list_of(each, rows) for each in _containers((args, kwargs))):
        return "it is given a list beside the tensors"
    if rows < ranks:
        return "there are fewer rows than ranks"
    return Given(leaves=[_plain(leaf) for leaf in leaves], spec=spec, rows=rows)


def _has_rows(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0


def _is_known(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        is_whole = type(leaf) in (torch.Tensor, OfAll, Waiting) and leaf.layout == torch.strided
        return is_whole and (leaf.dim() > 0 or not leaf.requires_grad)
    return isinstance(leaf, _WORDS)


def _plain(leaf: Any) -> Any:
    if type(leaf) is Waiting:
        return arrive(leaf)
    return leaf.as_subclass(torch.Tensor) if type(leaf) is OfAll else leaf


def _containers(value: Any) -> Iterator[Sequence[Any]]:
    if isinstance(value, (list, tuple)):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        yield from _containers(part)


def _is_list_of(value: Sequence[Any], rows: int) -> bool:
    """Whether *value* may have something for each of *rows*: the lengths of sentences, their names."""
    return len(value) == rows and all(isinstance(each, (int, float, str)) for each in value)


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, leaf.dim(), leaf.device.type, leaf.requires_grad
    return type(leaf) if type(leaf) in (int, float) else leaf
