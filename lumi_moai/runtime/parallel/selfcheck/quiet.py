"""While a check runs: no dropout, whose rows would differ, and nothing printed."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

_DROPOUTS = ("dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")
_PLACE = 4
"""Of `dropout_p` among the arguments of torch's attention."""


@contextmanager
def silent(models: Iterable[nn.Module]) -> Iterator[None]:
    """Compute without dropout in *models*, and print nothing."""
    recurrent = [part for model in models for part in model.modules() if isinstance(part, nn.RNNBase) and part.dropout]
    with ExitStack() as stack:
        for name in _DROPOUTS:
            stack.enter_context(mock.patch.object(F, name, _same))
        stack.enter_context(
            mock.patch.object(F, "scaled_dot_product_attention", _without_dropout(F.scaled_dot_product_attention))
        )
        for part in recurrent:
            stack.enter_context(mock.patch.object(part, "dropout", 0.0))
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        yield


def _same(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # torch's name
    return input


def _without_dropout(own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        if "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return own(*(0.0 if place == _PLACE else each for place, each in enumerate(args)), **kwargs)

    return attention
