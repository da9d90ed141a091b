"""Rows in another dimension than the first: batches with time first, and what the script makes of those."""

from typing import Any

import torch

from ....errors import RequestError
from ... import group
from .places import JOINED, PICKED, Part

_ALONG = {"getitem", "unbind", "iter"}


def is_aside(at: int | None) -> bool:
    """Whether *at* is another dimension than the first."""
    return at is not None and at > 0


def check(name: str, tensor: Any, args: tuple) -> None:
    """*name* is called with *args*, first of all with *tensor*: does the script go through the steps of a batch?

    Raises RequestError when ranks have different numbers of them, for they would wait for each other without end.
    """
    if name not in _ALONG or not isinstance(tensor, Part) or not is_aside(tensor.at) or not tensor.share.steps:
        return
    index = args[1] if name == "getitem" else None
    first = index[0] if isinstance(index, tuple) and index else index
    if name == "getitem" and (isinstance(first, bool) or not isinstance(first, int)):
        return
    known = tensor.share.steps
    if len(known) == 1:  # all ranks ask at the first step of a batch
        known.append(len(set(group.gathered(tensor.shape[0]))) > 1)
    if known[1] and first != 0:
        raise RequestError(
            f"the script goes through a batch step by step, of which this rank has {tensor.shape[0]} and others have"
            " other numbers (time first, filled up to the longest of its rows); fill up to one fixed length, or run"
            " it on one device"
        )


def check_read(name: str, tensor: Part) -> None:
    """The script reads all numbers of *tensor* after backward, for a metric.

    Raises RequestError where they are this rank's, with rows in the second dimension.
    """
    if is_aside(tensor.at) and tensor.share.steps and tensor.share.went_back:
        raise RequestError(
            f"{name} reads a tensor whose second dimension are the rows of a batch (time first), of which each rank has"
            " its own; transpose it before, count on the tensor, or run it on one device"
        )


def taken(at: int, index: Any, result: torch.Tensor, dims: int) -> int | None:
    """Where the rows of `tensor[index]` are, which were in the dimension *at* of *dims*; None if it cannot be told."""
    words = list(index) if isinstance(index, tuple) else [index]
    if any(not (each is None or each is Ellipsis or isinstance(each, (int, slice))) or each is True for each in words):
        return None
    taken_up = sum(each is not None and each is not Ellipsis for each in words)
    rest = [slice(None)] * (dims - taken_up)
    where = next((place for place, each in enumerate(words) if each is Ellipsis), len(words))
    words = [*words[:where], *rest, *words[where + 1 :]]
    old = new = 0
    for each in words:
        if each is None:
            new += 1
            continue
        if old == at:
            return new if isinstance(each, slice) and each == slice(None) else None
        old, new = old + 1, new + isinstance(each, slice)
    return None


def without(at: int, over: list[int], tensor: torch.Tensor, result: torch.Tensor) -> int:
    """Where they are once the dimensions *over* are gone, or of size 1."""
    return at if result.dim() == tensor.dim() else at - sum(dim < at for dim in over)


def left(name: str, tensor: Part, result: torch.Tensor) -> tuple[bool, int | None]:
    """Whether *result*, of which nothing is known but that *name* made it of *tensor*, has its rows, and where."""
    at = tensor.at
    if at is None:  # flat: times steps
        return result.shape[0] == tensor.shape[0], None
    return result.shape[: at + 1] == tensor.shape[: at + 1], at


def like(parts: list[Part], result: torch.Tensor) -> Part | None:
    """The one of *parts* of which *result*, a number for each of its elements, has the rows."""
    return next((each for each in parts if each.at not in (PICKED, 0) and each.shape == result.shape), None)


def of_model(part: torch.Tensor, given: list[Part]) -> list[int]:
    """The dimensions that may have the rows of *part*, which a model made of *given*, the likeliest first."""
    dims = sorted({0, *(each.at for each in given if each.at not in (None, PICKED, JOINED))})
    times = {each.shape[0] for each in given if is_aside(each.at) and each.share.steps}
    if any(is_aside(each.at) and each.shape == part.shape for each in given):
        return sorted(dims, reverse=True)  # the next state of a recurrent layer
    if times and (part.dim() > 2 or (part.dim() == 2 and part.shape[0] in times)):
        return sorted(dims, reverse=True)
    return dims


def is_flat(part: torch.Tensor, given: list[Part]) -> bool:
    """Whether *part*, which a model made of *given*, has rows times steps, with time first."""
    flat = {each.shape[0] * each.shape[1] for each in given if each.at == 1 and each.share.steps}
    return part.dim() > 0 and part.shape[0] in flat
