"""Lay a model out over the ranks, in place: the script's `model` and `optimizer` stay the script's."""

from torch import nn

from ....errors import RequestError
from ..place import Place


def apply(root: nn.Module, place: Place) -> None:
    """Lay *root* out as the plan says.

    Raises RequestError for a model that cannot be laid out so.
    """
    if place.plan.shards:
        raise RequestError("this layout cannot be had yet")
