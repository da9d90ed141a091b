"""Blocks whose activations are computed again in backward, so that they need not be kept."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from ....plan import Plan

_KEPT = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "convolution",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
)
"""With `selective`, results of these stay in memory: they cost the most to compute again."""
_CACHES = {"use_cache": False, "past_key_values": None, "past_key_value": None, "layer_past": None}
"""What a Hugging Face block is told in training: a cache would be filled twice."""
_CLASSES: dict[tuple[type, bool], type] = {}


class Recomputed(nn.Module):
    """A block that is computed again; parameters and their names are those of the block."""


def apply(lists: Sequence[Sequence[nn.Module]], plan: Plan) -> None:
    """Let the blocks in *lists* that *plan* names be computed again in backward."""
    every = plan.recompute_every or (1 if plan.recompute == "selective" else 0)
    for blocks in lists:
        for block in blocks[::every] if every else ():
            _apply(block, selective=plan.recompute == "selective")


def _apply(block: nn.Module, *, selective: bool) -> None:
    # A block whose script asked for the same would be computed three times.
    if isinstance(block, Recomputed) or getattr(block, "gradient_checkpointing", False):
        return
    key = (type(block), selective)
    if key not in _CLASSES:
        _CLASSES[key] = _recomputed(*key)
    block.__class__ = _CLASSES[key]


def _recomputed(own: Any, selective: bool) -> type:
    contexts = {"context_fn": partial(create_selective_checkpoint_contexts, _policy)} if selective else {}
    forward = again(own.forward, own, **contexts)
    body = {"forward": forward, "__module__": own.__module__, "__qualname__": own.__qualname__}
    return type(own.__name__, (Recomputed, own), body)


def again(call: Any, own: Any, **contexts: Any) -> Any:
    """*call* of a block of the class *own*, of which nothing is kept: it is computed again in backward."""
    names = list(inspect.signature(own.forward).parameters)[1:]

    def forward(block: Any, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return call(block, *args, **kwargs)
        kwargs |= {name: value for name, value in _CACHES.items() if kwargs.get(name) is not None}
        given = [*zip(names, args, strict=False), *(("", each) for each in args[len(names) :])]
        args = tuple(_CACHES.get(name, each) for name, each in given)
        compute, once = _each_once(partial(call, block), args, kwargs)
        return checkpoint.checkpoint(compute, *once, use_reentrant=False, **contexts)

    return forward


def _each_once(call: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, list[Any]]:
    """*call* with these arguments, as a function of each of them once, and these.

    Torch keeps one that is given twice as two, and its attention computes otherwise where query and key are not one.
    """
    values = (*args, *kwargs.values())
    once = list({id(each): each for each in values}.values())
    places = [next(place for place, each in enumerate(once) if each is value) for value in values]

    def compute(*given: Any) -> Any:
        mine = [given[place] for place in places]
        return call(*mine[: len(args)], **dict(zip(kwargs, mine[len(args) :], strict=True)))

    return compute, once


def _policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operation in _kept()
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _kept() -> frozenset[Any]:
    packets = (getattr(torch.ops.aten, name, None) for name in _KEPT)
    return frozenset(packet.default for packet in packets if packet is not None and "default" in packet.overloads())
