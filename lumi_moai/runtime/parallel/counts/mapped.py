"""Rows of a batch that `torch.func.vmap` goes through: what it gives has one entry for each of them."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ..transforming import is_transforming
from .batch import OfBatch
from .places import as_rows


def mapping(own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, `vmap`, whose results count over all ranks: it takes rows apart and gives plain tensors."""

    @functools.wraps(own)
    def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, *rest: Any, **words: Any) -> Any:
        made = own(func, in_dims, out_dims, *rest, **words)
        if torch.compiler.is_dynamo_compiling():
            return made

        @functools.wraps(made)
        def mapped(*args: Any, **kwargs: Any) -> Any:
            result = made(*args, **kwargs)
            if not torch.compiler.is_dynamo_compiling() and not is_transforming():
                part = _gone_through(args, kwargs, in_dims)
                if part is not None:
                    _mark(result, out_dims, part)
            return result

        return mapped

    return vmap


def _gone_through(args: tuple, kwargs: dict[str, Any], in_dims: Any) -> OfBatch | None:
    """A part of the batch whose rows are gone through, if there is one."""
    dims = in_dims if isinstance(in_dims, (tuple, list)) else [in_dims] * len(args)
    pairs = [*zip(args, dims, strict=False), (kwargs, 0)]  # what has a name is gone through in front
    leaves = ((leaf, dim) for arg, dim in pairs if isinstance(dim, int) for leaf in tree_leaves(arg))
    return next((leaf for leaf, dim in leaves if isinstance(leaf, OfBatch) and leaf.at == dim % leaf.dim()), None)


def _mark(result: Any, out_dims: Any, part: OfBatch) -> None:
    pairs = zip(result, out_dims, strict=False) if isinstance(out_dims, (tuple, list)) else [(result, out_dims)]
    for each, dim in pairs:
        for leaf in tree_leaves(each) if isinstance(dim, int) else ():
            if type(leaf) is torch.Tensor:
                as_rows(leaf, part, dim % leaf.dim())
