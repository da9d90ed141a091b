"""Where this rank stands in the plan: the mesh of all ranks, and among whom the rows of a batch are shared out."""

from dataclasses import dataclass
from typing import Any

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ...plan import Plan
from .. import accelerator

AXES = ("pp", "dp_replicate", "dp_shard", "tp")
"""Of the mesh, outermost first: ranks that are next to each other sit in one node."""


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


def find(plan: Plan, rank: int) -> Place:
    """The place of *rank*; all ranks must call this together."""
    mesh = init_device_mesh(
        accelerator.device().type, (plan.pp, plan.dp_replicate, plan.dp_shard, plan.tp), mesh_dim_names=AXES
    )
    alone = plan.tp == plan.pp == 1
    return Place(
        plan=plan,
        mesh=mesh,
        data_rank=rank // plan.tp % plan.data_ranks,
        data_group=None if alone else mesh["dp_replicate", "dp_shard"]._flatten("data").get_group(),
    )
