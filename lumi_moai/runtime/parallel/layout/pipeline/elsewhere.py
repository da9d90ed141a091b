"""A tensor that another stage has: its shape is known here, its numbers are not.

What is computed from it is elsewhere as well, so that code between the blocks runs as it is. It must not reach a block
of this stage, a result, or a decision.
"""

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from .....errors import RequestError
from .... import accelerator
from .. import operations

_NUMBERS = frozenset(("item", "tolist", "numpy", "data_ptr", "__bool__", "__int__", "__float__", "__index__", "cpu"))


class Elsewhere(torch.Tensor):
    """A tensor without numbers, on torch's device `meta`, which says that it is on this rank's device."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """What *func* gives, elsewhere.

        Raises RequestError when it asks for numbers.
        """
        name, _ = operations.name_of(func)
        if name in _NUMBERS:
            raise refusal(f"the model reads numbers ({name.strip('_')}) of a result of a block")
        if name == "device":
            return accelerator.device()
        target = args[0] if args else None
        edits = operations.is_in_place(name) or name.startswith("__set") or (kwargs or {}).get("out") is not None
        if edits and not isinstance(target, Elsewhere):
            raise refusal(f"the model keeps a result of a block in another tensor ({name.strip('_')})")
        words = {key: "meta" if key == "device" else value for key, value in (kwargs or {}).items()}
        given = tree_map(_without_numbers, (args, words))
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            return tree_map(_named, func(*given[0], **given[1]))

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """What is known."""
        return f"Elsewhere({tuple(self.shape)})"


def like(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of *shape* and *dtype* that another stage has."""
    return torch.empty(shape, dtype=dtype, device="meta").as_subclass(Elsewhere)


def holds(tree: Any) -> bool:
    """Whether something in *tree* is elsewhere."""
    return any(isinstance(leaf, Elsewhere) for leaf in tree_leaves(tree))


def refusal(what: str) -> RequestError:
    """The error for a model that does *what*, which stages cannot."""
    return RequestError(
        f"the model cannot be computed in pipeline stages: {what}; use --layout fsdp or tp=2 in the place of pp"
    )


def _without_numbers(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("meta")
    if not isinstance(leaf, torch.Tensor):
        return leaf
    with torch._C.DisableTorchFunctionSubclass():
        return leaf.as_subclass(torch.Tensor) if isinstance(leaf, Elsewhere) else torch.empty_like(leaf, device="meta")


def _named(leaf: Any) -> Any:
    return leaf.as_subclass(Elsewhere) if isinstance(leaf, torch.Tensor) else leaf
