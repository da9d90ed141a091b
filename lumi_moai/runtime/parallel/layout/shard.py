"""One copy of a model spread over ranks, its weights gathered block by block: FSDP2, in place."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import accelerator
from .. import need
from ..place import Place
from . import born, sight, spread
from .spread import edited

_WAY_OUT = "use --layout replicate"
_AVERAGES = (2, 13)
"""The first version seen to average parts of gradients on the CPU: 2.7 and 2.8 give their sum, without a word."""
_COPIES = (2, 8)
"""The first version whose FSDP2 adds up the gradients of copies on the CPU; 2.7 stops in an assertion."""
_GATHERED: WeakSet[nn.Module] = WeakSet()
"""Models that were called and may have gathered weights left."""


def apply(root: nn.Module, lists: Sequence[Sequence[nn.Module]], place: Place) -> bool:
    """Spread *root* over the ranks of dp_shard; True if that was done.

    Raises RequestError for a model that cannot be spread.
    """
    if place.plan.dp_shard == 1 or not is_here(root, place):
        return False
    _check(root)
    if not accelerator.is_gpu() and need.version_of(torch.__version__) < _AVERAGES:
        _check_copies(place)
        _add_up_and_divide()
    with born.set_aside(root, on_host=place.plan.offload):
        whole = {each for each in root.parameters() if not born.can_spread(each)}
        words = {"mesh": place.spread_mesh, "ignored_params": whole, **_policies(place)}
        reshard = place.plan.reshard
        for block in (block for blocks in lists for block in blocks):
            _shard(block, reshard_after_forward=reshard, **words)
        # The root's own weights are needed again at once, in backward; what calls it without one gives them back.
        _shard(root, reshard_after_forward=False, **words)
    root._get_fsdp_state()._lazy_init()  # now, because the script may call a part of the model first
    return True


def _check_copies(place: Place) -> None:
    if place.spread_mesh.ndim > 1 and need.version_of(torch.__version__) < _COPIES:
        raise RequestError(
            f"copies of a model in parts (hsdp) need PyTorch 2.8 or newer where the CPU stands in, this is"
            f" {torch.__version__}; take a newer one, or --layout fsdp"
        )


def _add_up_and_divide() -> None:
    """Have FSDP divide sums of gradients itself, as it does on devices that only add up (this one is called MTIA)."""
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives as of_torch  # private, so asked for by need

    if not hasattr(of_torch._get_gradient_divide_factors, "__wrapped__"):
        of_torch._get_gradient_divide_factors = _on_another(of_torch._get_gradient_divide_factors)


def _on_another(factors: Any) -> Any:
    @functools.wraps(factors)
    def asked(reduce_group: Any, copies_group: Any, dtype: torch.dtype, _device: str = "", *rest: Any) -> Any:
        return factors(reduce_group, copies_group, dtype, "mtia", *rest)

    return asked


def after_call(root: nn.Module, call: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A call of a model; one that no backward follows leaves no gathered weights behind."""
    output = call(*args, **kwargs)
    _GATHERED.add(root)
    if not torch.is_grad_enabled():
        edited()
    return output


def give_back() -> None:
    """Let the ranks keep their parts only: an edit of these would be hidden by weights that are still gathered."""
    for root in list(_GATHERED):
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
    _GATHERED.clear()


spread.ON_EDIT.append(give_back)


def check_backward(inputs: Any, *, create_graph: bool) -> None:
    """Refuse a backward that FSDP does not see.

    Raises RequestError.
    """
    if create_graph:
        raise RequestError(
            f"create_graph=True needs weights that stay gathered, and these are spread over ranks; {_WAY_OUT}"
        )
    if any(isinstance(each, nn.Parameter) for each in (inputs if isinstance(inputs, (list, tuple)) else [inputs])):
        raise RequestError(
            "gradients of chosen parameters (inputs=..., torch.autograd.grad) would be this rank's part of them while"
            f" weights are spread over ranks; call loss.backward() and read parameter.grad, or {_WAY_OUT}"
        )


def _shard(module: nn.Module, **words: Any) -> None:
    own = type(module)
    module.register_forward_hook(_without_views)  # before that of FSDP
    fully_shard(module, **words)
    sight.keep(module)
    # The class that FSDP makes is called FSDP...; the script prints its models, and libraries store their names.
    for name in ("__name__", "__qualname__", "__module__"):
        setattr(type(module), name, getattr(own, name))
    type(module).__deepcopy__ = _not_copied


def _not_copied(module: nn.Module, _memo: Any) -> nn.Module:
    raise RequestError(
        f"copy.deepcopy of {type(module).__name__}, whose weights are spread over ranks since training began, is not"
        f" possible; make the copy before training, copy model.state_dict(), or {_WAY_OUT}"
    )


def _without_views(_module: nn.Module, _args: Any, output: Any) -> Any:
    """The outputs, none of them a view: an edit in place of a view takes away FSDP's hook, and gradients go wrong."""
    return tree_map(lambda leaf: leaf.clone() if _is_trained_view(leaf) else leaf, output)


def _is_trained_view(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad and leaf._is_view()


def _policies(place: Place) -> dict[str, Any]:
    # Weights travel in float32 also when matrix products are in bfloat16 (precision.in_bfloat16): norms and biases in
    # bfloat16 meet float32 buffers and activations of the script, and torch refuses to mix them.
    return {
        "offload_policy": CPUOffloadPolicy(pin_memory=accelerator.is_gpu()) if place.plan.offload else OffloadPolicy()
    }


def is_here(root: nn.Module, place: Place) -> bool:
    """Whether *root* is on this rank's device.

    Raises RequestError when it is to be trained and is not.
    """
    mine = accelerator.device()
    away = [each for each in root.parameters() if born.device_of(each) != mine and not each.is_meta]
    if away and any(each.requires_grad for each in away) and root.training:
        raise RequestError(
            f"a model is on {born.device_of(away[0])} when training begins, the device of this rank is {mine};"
            " move it with .cuda() or .to('cuda') before the first loop over a DataLoader"
        )
    return not away


def _check(root: nn.Module) -> None:
    if isinstance(root, (nn.ModuleList, nn.ModuleDict)) and type(root).forward is nn.Module.forward:
        raise RequestError(
            "a ModuleList or ModuleDict whose models the script calls one by one has no forward, at which weights that"
            f" are spread over ranks are gathered; keep these models in a list or dict of Python, or {_WAY_OUT}"
        )
    for name, module in root.named_modules():
        for reason in _obstacles(module):
            raise RequestError(f"{name or type(root).__name__} {reason}; {_WAY_OUT}")


def _obstacles(module: nn.Module) -> Iterator[str]:
    if any(isinstance(each, nn.parameter.UninitializedParameter) for each in module.parameters(recurse=False)):
        yield "is a lazy module without weights when training begins; run one forward before"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
        yield "has sparse gradients, which cannot be spread over ranks"
    for each in module.parameters(recurse=False):
        if not each.is_contiguous():
            each.data = each.data.contiguous()
