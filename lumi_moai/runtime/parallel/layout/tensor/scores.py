"""Attention on the heads of which this rank has a part."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from . import columns, elements, moves
from .columns import Function

_WORDS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def attention(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Scaled dot products, by heads; where keys have fewer heads than queries the parts still belong together."""
    words = dict(zip(_WORDS, args, strict=False)) | kwargs
    heads = [words.pop(name) for name in _WORDS[:3]]
    if not all(isinstance(each, columns.Columns) and each.dim() - each._axis == 3 for each in heads):
        return NotImplemented
    mask = words.pop("attn_mask", None)
    if mask is not None:
        if not elements.meets(mask, 3, heads[0]._size):
            return NotImplemented
        mask = elements.matched(mask, 3)
    mine = [columns.plain(each) for each in heads]
    return columns.mark(products(func, mine, mask, words.pop("dropout_p", 0.0), **words), heads[0]._axis)


def products(
    func: Function, heads: Sequence[torch.Tensor], mask: torch.Tensor | None, dropout: float, **words: Any
) -> torch.Tensor:
    """What *func*, torch's scaled dot products, gives for this rank's *heads*: queries, keys and values."""
    q, k, v = heads
    if not dropout:
        return func(q, k, v, attn_mask=mask, **words)
    if q.device.type != "cpu":
        with own_chance(q.device):
            return func(q, k, v, attn_mask=mask, dropout_p=dropout, **words)
    if words.get("is_causal"):
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if words.get("enable_gqa"):
        k, v = (each.repeat_interleave(q.shape[-3] // each.shape[-3], -3) for each in (k, v))
    return torch.matmul(weights(q, k, mask, dropout, words.get("scale")), v)


def weights(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, dropout: float, scale: float | None = None
) -> torch.Tensor:
    """How much each query of this rank's heads takes of each key; *mask* is added, or says where there is anything."""
    found = torch.matmul(q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), k.transpose(-2, -1))
    if mask is not None:
        found = found.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else found + mask
    found = found.softmax(-1)
    return _dropped(found, dropout) if dropout else found


def _dropped(found: torch.Tensor, dropout: float) -> torch.Tensor:
    """Dropout as one device would draw it for all heads; on a device of its own each rank draws for its heads."""
    if found.device.type != "cpu":
        with own_chance(found.device):
            return F.dropout(found, dropout)
    size = [*found.shape[:-3], found.shape[-3] * moves.ranks(), *found.shape[-2:]]
    drawn = F.dropout(torch.ones(size, dtype=found.dtype, device=found.device), dropout)
    return found * moves.part(drawn, drawn.dim() - 3)


@contextmanager
def own_chance(device: torch.device) -> Iterator[None]:
    """Within this the random numbers of *device* are this rank's own; after it those that the group shares go on.

    What was shared decides, so a forward that is computed again draws the same.
    """
    stream = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
    shared = stream.get_state()
    torch.rand(1, device=device)
    later = stream.get_state()
    digest = hashlib.blake2b(shared.numpy().tobytes(), digest_size=7, salt=moves.rank().to_bytes(8, "little"))
    stream.manual_seed(int.from_bytes(digest.digest(), "little"))
    try:
        yield
    finally:
        stream.set_state(later)
