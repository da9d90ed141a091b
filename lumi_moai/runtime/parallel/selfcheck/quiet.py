"""While a check runs: no dropout, whose rows would differ, nothing printed, and noise that is the same for each row."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

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


class Steady(TorchDispatchMode):
    """Every number that torch draws is the middle of what it could be, so that each row gets the same noise.

    An order begins with the second, and a choice is the first of what may be chosen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._singles = 0

    def counted(self) -> int:
        """How many single numbers of the ranks' shared stream were asked for since this was last called."""
        found, self._singles = self._singles, 0
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do *func*, or put its middle where it would draw."""
        words, name = kwargs or {}, func.overloadpacket.__name__
        middle = _MIDDLES.get(name)
        if middle is None:
            return func(*args, **words)
        names = [each.name for each in func._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **words}
        made = middle(func, given)
        # A whole number put in place seeds the streams of our own, one for each rank.
        is_single = made.dim() < 2 if name == "_sample_dirichlet" else made.numel() == 1
        self._singles += is_single and made.device.type == "cpu" and name != "random_"
        return made


def _filled(func: Any, given: Mapping[str, Any]) -> Any:
    """`normal_(mean, std)`, `uniform_(from, to)` and their like, in place."""
    name, tensor = func.overloadpacket.__name__, given["self"]
    if name == "normal_":
        return tensor.fill_(given.get("mean", 0.0) + given.get("std", 1.0) / 2)
    if name == "uniform_":
        return tensor.fill_((given.get("from", 0.0) + given.get("to", 1.0)) / 2)
    if name == "random_":
        low, high = (given.get("from", 0), given["to"]) if given.get("to") is not None else (0, 2)
        return tensor.fill_((low + high) // 2)
    return tensor.fill_(1.0)


def _made(func: Any, given: Mapping[str, Any]) -> Any:
    """`randn(size)`, `rand_like(tensor)`, `randint(low, high, size)`: as a new tensor."""
    is_whole = "int" in func.overloadpacket.__name__
    middle = (given.get("low", 0) + given["high"]) // 2 if is_whole else 0.5
    if "self" in given:
        return torch.full_like(given["self"], middle, **_kind(given))
    return _full({"dtype": torch.int64, **given} if is_whole else given, middle)


def _full(given: Mapping[str, Any], number: float) -> torch.Tensor:
    return torch.full(given["size"], number, **_kind(given))


def _kind(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in ("dtype", "layout", "device", "pin_memory") if given.get(key) is not None}


def _chosen(func: Any, given: Mapping[str, Any]) -> Any:
    """`normal(mean, std)` and `bernoulli(p)` of tensors."""
    if func.overloadpacket.__name__ == "normal":
        mean, std = given.get("mean", 0.0), given.get("std", 1.0)
        middle = mean + std * 0.5
        return middle if isinstance(middle, torch.Tensor) else _full(given, middle)
    chance = given.get("p", given["self"])
    if func.overloadpacket.__name__ == "bernoulli":
        return (given["self"] >= 0.5).to(given["self"].dtype)
    tensor = given["self"]
    return tensor.copy_(chance >= 0.5) if isinstance(chance, torch.Tensor) else tensor.fill_(float(chance >= 0.5))


def _mean(func: Any, given: Mapping[str, Any]) -> Any:
    """`poisson(rate)`, `binomial(count, prob)`, and what a Gamma, a Beta or a Dirichlet draws."""
    name = func.overloadpacket.__name__
    if name == "binomial":
        return (given["count"] * given["prob"]).floor()
    rates = given["self"]
    return rates / rates.sum(-1, keepdim=True) if name == "_sample_dirichlet" else rates.clone()


def _ordered(func: Any, given: Mapping[str, Any]) -> Any:
    """`randperm(n)`."""
    named = {key: given[key] for key in ("dtype", "layout", "device", "pin_memory") if given.get(key) is not None}
    return torch.arange(given["n"], **{"dtype": torch.int64, **named}).roll(-1)


def _picked(func: Any, given: Mapping[str, Any]) -> Any:
    """`multinomial(chances, num_samples, replacement)`; never the likeliest, which rounding may make another one."""
    some = (given["self"] > 0).to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    count = given["num_samples"]
    return some[..., :1].expand(*some.shape[:-1], count).clone() if given.get("replacement") else some[..., :count]


_MIDDLES: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    **dict.fromkeys(("normal_", "uniform_", "random_", "exponential_"), _filled),
    **dict.fromkeys(("log_normal_", "cauchy_", "geometric_"), _filled),
    "randperm": _ordered,
    "multinomial": _picked,
    **dict.fromkeys(("randn", "rand", "randint", "randn_like", "rand_like", "randint_like"), _made),
    **dict.fromkeys(("bernoulli", "bernoulli_", "normal"), _chosen),
    **dict.fromkeys(("poisson", "binomial", "_standard_gamma", "_sample_dirichlet"), _mean),
}


def _same(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # torch's name
    return input


def _without_dropout(own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        if "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return own(*(0.0 if place == _PLACE else each for place, each in enumerate(args)), **kwargs)

    return attention
