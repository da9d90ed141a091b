"""Where this rank stands in the plan: the mesh of all ranks, and among whom the rows of a batch are shared out."""

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ...plan import Plan
from .. import accelerator

AXES = ("pp", "dp_replicate", "dp_shard", "tp")
"""Of a mesh, outermost first: ranks that are next to each other sit in one node."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The coordinates of one rank."""

    plan: Plan
    mesh: DeviceMesh
    data_rank: int
    """Which part of a batch is this rank's; ranks of one tp or pp group have the same part."""
    data_group: Any
    """The ranks that have the other parts; None for all ranks of the job."""

    @property
    def spread_mesh(self) -> DeviceMesh:
        """The ranks that hold parts of one copy, and, if there are several copies, those that hold the same part."""
        both = self.plan.dp_replicate > 1
        return self.mesh["dp_replicate", "dp_shard"] if both else self.mesh["dp_shard"]

    @property
    def data_ranks(self) -> int:
        """Among how many a batch is shared out."""
        return self.plan.data_ranks


def find(plan: Plan, rank: int, known: Place | None = None) -> Place:
    """The place of *rank*, on the mesh of *known* where that has the same shape; all ranks must call this together."""
    mesh = known.mesh if known is not None and _shape(known.plan) == _shape(plan) else _make(plan)
    return Place(plan=plan, mesh=mesh, data_rank=rank // plan.tp % plan.data_ranks, data_group=_data_group(plan, mesh))


def _shape(plan: Plan) -> dict[str, int]:
    """The axes that *plan* has a use for: each other one costs every rank a group, which wakes up all the time.

    An axis of one rank stays where a batch is not shared out, for the group of those that share it.
    """
    sizes = {axis: getattr(plan, axis) for axis in AXES}
    return {axis: size for axis, size in sizes.items() if size > 1 or (axis == "dp_shard" and plan.data_ranks == 1)}


def _make(plan: Plan) -> DeviceMesh:
    shape, device = _shape(plan), accelerator.device().type
    if len(shape) == 1:
        return DeviceMesh.from_group(dist.group.WORLD, device, mesh_dim_names=tuple(shape))
    return init_device_mesh(device, tuple(shape.values()), mesh_dim_names=tuple(shape))


def _data_group(plan: Plan, mesh: DeviceMesh) -> Any:
    if plan.tp == plan.pp == 1:
        return None
    axes = tuple(axis for axis in ("dp_replicate", "dp_shard") if axis in (mesh.mesh_dim_names or ()))
    return mesh[axes]._flatten("data").get_group() if len(axes) > 1 else mesh[axes[0]].get_group()
