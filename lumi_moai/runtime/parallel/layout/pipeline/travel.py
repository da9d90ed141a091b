"""What a block returns, as one row of numbers that travels to the next stage, and back into what it was."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from . import elsewhere

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a tensor that travels."""

    size: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a block returns for so many rows."""

    spec: TreeSpec
    leaves: tuple[Any, ...]
    """A `Shape` for each tensor; anything else is what every stage returns."""

    def __reduce__(self) -> Any:
        # Torch's own way to store a spec warns of itself.
        return _form_like, (tree_unflatten(self.leaves, self.spec),)

    @property
    def dtype(self) -> torch.dtype:
        """Of the row: the widest."""
        kinds = [leaf.dtype for leaf in self._shapes()]
        widest = kinds[0]
        for kind in kinds[1:]:
            widest = torch.promote_types(widest, kind)
        return widest

    @property
    def numbers(self) -> int:
        """How many travel."""
        return sum(leaf.size.numel() for leaf in self._shapes())

    def _shapes(self) -> list[Shape]:
        return [leaf for leaf in self.leaves if isinstance(leaf, Shape)]

    def elsewhere(self) -> Any:
        """What a block of an earlier stage gives."""
        leaves = [elsewhere.like(leaf.size, leaf.dtype) if isinstance(leaf, Shape) else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.spec)

    def received(self, row: torch.Tensor) -> Any:
        """What a block gave, of which *row* arrived."""
        leaves, start = [], 0
        for leaf in self.leaves:
            if isinstance(leaf, Shape):
                end = start + leaf.size.numel()
                leaves.append(row[start:end].view(leaf.size).to(leaf.dtype))
                start = end
            else:
                leaves.append(leaf)
        return tree_unflatten(leaves, self.spec)


@dataclass(frozen=True, kw_only=True)
class Received:
    """What the last block of an earlier stage gave."""

    form: Form
    value: Any


def of(value: Any) -> Form:
    """The form of *value*, which a block returned.

    Raises RequestError for what cannot travel.
    """
    leaves, spec = tree_flatten(value)
    for leaf in leaves:
        travels = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        if not travels and not isinstance(leaf, _PLAIN):
            kind = f"tensor of {leaf.dtype}" if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            raise elsewhere.refusal(f"a block returns a {kind}, which no gradient comes back for")
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise elsewhere.refusal("a block returns no tensor")
    return Form(spec=spec, leaves=tuple(shape_of(leaf) for leaf in leaves))


def shape_of(leaf: Any) -> Any:
    """The `Shape` of a tensor; anything else as it is."""
    return Shape(size=leaf.shape, dtype=leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf


def _form_like(tree: Any) -> Form:
    leaves, spec = tree_flatten(tree)
    return Form(spec=spec, leaves=tuple(leaves))


def row(value: Any, form: Form, numbers: int) -> torch.Tensor:
    """*value*, of *form*, as a row of as many *numbers*, of which the last ones may mean nothing.

    Raises RequestError when *value* has another form.
    """
    if of(value) != form:
        raise elsewhere.refusal("a block returns something else from piece to piece")
    flat = [leaf.reshape(-1).to(form.dtype) for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]
    joined = flat[0] if len(flat) == 1 else torch.cat(flat)
    return F.pad(joined, (0, numbers - len(joined))) if len(joined) < numbers else joined
