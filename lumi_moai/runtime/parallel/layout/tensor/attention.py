"""torch's MultiheadAttention, of which each rank computes its heads.

It computes as torch's own does; the weights of a rank's heads lie apart in those of queries, keys and values, which are
one tensor, so the ranks exchange rows of it in each forward, which are fewer numbers than its results.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from . import columns, exchange, moves, scores


def can_spread(module: nn.Module, tp: int) -> bool:
    """Whether *module* is an attention whose heads *tp* ranks can share out."""
    return (
        type(module) is nn.MultiheadAttention
        and module.num_heads % tp == 0
        and module.bias_k is None
        and not module.add_zero_attn
        and all(name in holder._parameters for name, holder, _ in parts_of(module))
    )


def parts_of(module: Any) -> Iterator[tuple[str, nn.Module, int]]:
    """Name of each parameter of *module* that is spread, the module that has it, and the axis."""
    packed = module._qkv_same_embed_dim
    for name in ("in_proj_weight",) if packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        yield name, module, 0
    if module.in_proj_bias is not None:
        yield "in_proj_bias", module, 0
    yield "weight", module.out_proj, 1


def forward(  # noqa: PLR0917  (torch's own)
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What torch's own forward gives; each rank computes its heads.

    Raises RuntimeError where torch's own does.
    """
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    masks = _float_masks(query, key_padding_mask, attn_mask)
    batched: bool = F._mha_shape_check(query, key, value, *masks, module.num_heads)  # type: ignore[attr-defined]
    rows_first = module.batch_first or not batched
    heads = _heads(module, _inputs((query, key, value), batched, rows_first))
    is_causal = is_causal and key_padding_mask is None and not need_weights
    mask = None if is_causal else _mask(module, len(heads[0]), masks)
    dropout = module.dropout if module.training else 0.0
    if need_weights:
        taken = scores.weights(heads[0], heads[1], mask, dropout)
        mixed, weights = torch.matmul(taken, heads[2]), _of_all_heads(taken, module.num_heads, average_attn_weights)
    else:
        func = F.scaled_dot_product_attention
        mixed, weights = scores.products(func, heads, mask, dropout, is_causal=is_causal), None
    output = _closed(
        module, mixed.permute(2, 0, 1, 3).flatten(2)
    )  # positions first, as torch has them: dropout sees it
    if not batched:
        return output.squeeze(1), None if weights is None else weights.squeeze(0)
    return output.transpose(0, 1) if rows_first else output, weights


def _float_masks(query: torch.Tensor, padding: Any, mask: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Masks that are added to the products."""
    words = {"other_type": F._none_or_dtype(mask), "other_name": "attn_mask", "target_type": query.dtype}
    own = {"other_type": None, "other_name": "", "target_type": query.dtype, "check_other": False}
    return (
        F._canonical_mask(mask=columns.together(padding), mask_name="key_padding_mask", **words),
        F._canonical_mask(mask=columns.together(mask), mask_name="attn_mask", **own),
    )


def _inputs(given: Sequence[torch.Tensor], batched: bool, rows_first: bool) -> list[torch.Tensor]:
    """Queries, keys and values as *given*, rows first; those that are one tensor still are."""
    made: dict[int, torch.Tensor] = {}
    for each in given:
        if id(each) not in made:
            whole = moves.copy(columns.together(each))
            made[id(each)] = whole.unsqueeze(0) if not batched else whole if rows_first else whole.transpose(0, 1)
    return [made[id(each)] for each in given]


def _heads(module: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Queries, keys and values of this rank's heads: rows, heads, positions, numbers."""
    return [each.unflatten(-1, (-1, module.head_dim)).transpose(1, 2) for each in _projected(module, *inputs)]


def _projected(module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
    """Queries, keys and values of this rank's heads."""
    bias = None if module.in_proj_bias is None else _own_thirds(module.in_proj_bias, module.embed_dim)
    if not module._qkv_same_embed_dim:
        weights = [moves.mine(each) for each in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)]
    else:
        packed = _own_thirds(module.in_proj_weight, module.embed_dim)
        if q is k is v:
            return [*F.linear(q, packed, bias).chunk(3, -1)]
        weights = [*packed.chunk(3)]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    return [F.linear(x, weight, b) for x, weight, b in zip((q, k, v), weights, biases, strict=True)]


def _own_thirds(parameter: torch.Tensor, size: int) -> torch.Tensor:
    """The rows of *parameter* that are of this rank's heads, in each of its three pieces of *size* rows."""
    ranks = moves.ranks()
    had = exchange.own_spans([(0, 3 * size)], ranks)
    wanted = exchange.own_spans([(place * size, size) for place in range(3)], ranks)
    return exchange.exchanged(moves.mine(parameter), 0, had, wanted)


def _mask(module: Any, rows: int, masks: tuple[torch.Tensor | None, torch.Tensor | None]) -> torch.Tensor | None:
    """Both masks as one, as far as it is for this rank's heads."""
    padding, mask = (each if each is None else moves.copy(each) for each in masks)
    if masks[1] is not None and masks[1].dim() == 3:
        mask = moves.part(masks[1].unflatten(0, (rows, module.num_heads)), 1)
    if padding is None:
        return mask
    padding = padding.view(rows, 1, 1, -1)
    return padding if mask is None else padding + mask


def _closed(module: Any, mixed: torch.Tensor) -> torch.Tensor:
    """What the heads give together."""
    output = moves.total(F.linear(mixed, moves.mine(module.out_proj.weight)))
    bias = moves.mine(module.out_proj.bias)
    return output if bias is None else output + bias.to(output.dtype)


def _of_all_heads(weights: torch.Tensor, heads: int, is_mean: bool) -> torch.Tensor:
    return moves.total(weights.sum(1)) / heads if is_mean else moves.joined(weights, 1)
