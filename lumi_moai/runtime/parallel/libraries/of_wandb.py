"""Weights & Biases: rank 0 has the one run, the other ranks a silent one of the same name; what is logged is global."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import group
from .. import counts
from ..files.writing import DESK
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for wandb."""
    for module, name, call in (
        ("wandb_init", "init", _starting),
        ("wandb_run", "Run.log", _logging),
        ("lib.noop_run", "NoopRun.log", _logging),
        ("wandb_run", "Run.watch", _watching),
    ):
        around(f"wandb.sdk.{module}", name, engine, call)


def _starting(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The run of rank 0; the names that others gave theirs by chance become its names."""
    if DESK.rank:
        kwargs["mode"] = "disabled"
    run = own(*args, **kwargs)
    identity, name, folder = group.agree((run.id, run.name, run.dir))
    if DESK.rank:
        DESK.call_alike(run.dir, folder)
        run._settings = run._settings.model_copy(update={"run_id": identity, "run_name": name})
    return run


def _logging(engine: "Engine", own: Callable[..., Any], run: Any, data: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The library knows torch's own tensors only. A step that is repeated after a restart was logged before."""
    if engine.is_repeating:
        return None

    def plain(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        number = engine.number(leaf) if leaf.requires_grad and leaf.dim() == 0 else leaf
        return number.detach().as_subclass(torch.Tensor)

    return own(run, tree_map(plain, counts.whole(data)), *args, **kwargs)


def _watching(engine: "Engine", own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Its hooks are rank 0's, which cannot gather weights by itself.

    Raises RequestError where weights are in parts.
    """
    asked = engine.layout
    if engine.may_shard or (asked.tp or 1) * (asked.pp or 1) > 1:
        raise RequestError(
            "wandb.watch looks at weights in a forward of rank 0 alone, which has a part of them only; leave it out,"
            " log what you need with wandb.log, or use --layout replicate"
        )
    return own(*args, **kwargs)
