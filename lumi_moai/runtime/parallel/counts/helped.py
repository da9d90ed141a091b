"""Where the rows are in what a library makes of them for the script: einops, turned pictures, noise that is added.

Within the library they are plain rows, of which sizes and sums are this rank's; the script gets rows back to count.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ....errors import RequestError
from .names import EACH, VIEW
from .places import Part, after_each, after_view, as_rows


def passed_on(name: str, args: tuple, kwargs: dict[str, Any], result: Any) -> Any:
    """*result*, which a library made by *name* of rows, and which the script may get back: as rows, if it has them."""
    parts = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Part)]
    for each in result if isinstance(result, (tuple, list)) else [result]:
        if type(each) is torch.Tensor and each.dim() and not any(each is given for given in args):
            at = _rows_at(name, [part for part in parts if part.at is not None], each, args, kwargs)
            if at is not None:
                as_rows(each, parts[0], at)
    return result


def _rows_at(name: str, parts: Sequence[Part], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    if not parts or name.startswith("new_"):
        return None
    try:
        if name in EACH:
            return after_each(parts, result)
        if name in VIEW:
            return after_view(name, parts[0], result, args, kwargs)
    except RequestError:  # rows that meet other rows are the library's affair
        return None
    at = parts[0].at
    fits = at is not None and result.dim() > at and result.shape[at] == parts[0].shape[at]
    return at if fits else None
