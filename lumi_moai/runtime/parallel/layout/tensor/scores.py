"""Attention on the heads of which this rank has a part."""

from typing import Any

from . import columns, elements
from .columns import Function

_WORDS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def attention(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Scaled dot products, by heads; where keys have fewer heads than queries the parts still belong together."""
    words = dict(zip(_WORDS, args, strict=False)) | kwargs
    query, heads = words["query"], [words["query"], words["key"], words["value"]]
    if not all(isinstance(each, columns.Columns) and each.dim() - each._axis == 3 for each in heads) or words.get(
        "dropout_p"
    ):
        return NotImplemented
    mask = words.get("attn_mask")
    if mask is not None:
        if not elements.meets(mask, 3, query._size):
            return NotImplemented
        words["attn_mask"] = elements.matched(mask, 3)
    return columns.mark(func(**words), query._axis)
