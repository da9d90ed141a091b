"""Which cores each rank gets, and whether the ranks of a running job sit where they should.

On a whole node the cores are known beforehand and stand in the script as masks. On part of a node Slurm decides, so the
ranks share out the cores that arrived. Either way every rank writes down what it sees, and `judge` reads the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from .site import Node
from .units import format_cores


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What a rank has to know about its node; travels in the run folder as JSON."""

    near_cores: tuple[tuple[int, ...], ...]
    """The usable cores next to device d."""
    numa: tuple[int, ...]
    """The NUMA domain of device d."""
    usable_cores: tuple[int, ...]

    @property
    def devices(self) -> int:
        """Devices of the node."""
        return len(self.near_cores)

    def as_json(self) -> dict[str, list[object]]:
        """The JSON form that `from_json` reads."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, list]) -> "Topology":
        """The topology that `as_json` wrote."""
        return cls(
            near_cores=tuple(tuple(cores) for cores in data["near_cores"]),
            numa=tuple(data["numa"]),
            usable_cores=tuple(data["usable_cores"]),
        )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a rank must know when it starts: the `launch` part of a run folder's `job.json`."""

    world_size: int
    nodes: int
    devices_per_node: int
    launcher: Literal["srun", "torchrun", "local"]
    binding: Literal["strict", "warn"]
    whole_node: bool
    """The job owns its nodes, so the cores of each rank were fixed in the script."""
    bind: bool
    """False on a site whose cores are nobody's business (a laptop): nothing is bound, only the world is judged."""
    signal: str
    """Name of the signal that comes ahead of the time limit, such as `USR2`."""
    topology: Topology
    peak_tflops: Mapping[str, float] = field(default_factory=dict)
    """Dense peak of one device by data type, 10^12 operations a second; empty where none is known."""
    monitor: tuple[str, ...] = ()
    """Who tells of the devices while the job runs: names of `monitor` readers."""
    per_package: int = 1
    """How many devices share a power sensor."""

    def as_json(self) -> dict[str, object]:
        """The JSON form that `from_json` reads."""
        return {**asdict(self), "topology": self.topology.as_json()}

    @classmethod
    def from_json(cls, data: Mapping) -> "Launch":
        """The launch that `as_json` wrote."""
        lists = {"topology": Topology.from_json(data["topology"]), "monitor": tuple(data.get("monitor", ()))}
        return cls(**{**data, **lists})


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one rank saw of itself before the user's code ran; one line of the certificate."""

    rank: int
    local_rank: int
    node_rank: int
    world_size: int
    local_world_size: int
    host: str
    cores: tuple[int, ...]
    """The physical cores that the rank may run on."""
    device: int | None
    """Index of its device on the node; None where the rank has no device."""
    bus: str | None = None
    pid: int = 0

    def as_json(self) -> dict[str, object]:
        """The JSON form that `from_json` reads."""
        return {**asdict(self), "cores": list(self.cores)}

    @classmethod
    def from_json(cls, data: Mapping) -> "Row":
        """The row that `as_json` wrote."""
        return cls(**{**data, "cores": tuple(data["cores"])})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The certificate's word. `faults` are certain mistakes, `remarks` are worth knowing."""

    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


def topology(node: Node) -> Topology:
    """The topology of *node*."""
    return Topology(
        near_cores=tuple(slot.cores for slot in node.slots),
        numa=tuple(slot.numa for slot in node.slots),
        usable_cores=node.usable_cores,
    )


def cpu_masks(near_cores: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """One hexadecimal core mask per local rank, for `srun --cpu-bind=mask_cpu:`."""
    return tuple(hex(sum(1 << core for core in cores)) for cores in near_cores)


def share_cores(top: Topology, given: Sequence[int], devices: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Deal the *given* cores of a node to the ranks that own *devices*, the nearest first, the same number each.

    Cores of the same L3 group as the device come first, then those of its NUMA domain, then the rest. Fewer cores than
    ranks cannot be shared out: every rank then keeps them all.
    """
    quota = len(given) // len(devices) if devices else 0
    if quota == 0:
        return tuple(tuple(given) for _ in devices)
    dealt: list[list[int]] = [[] for _ in devices]
    free = set(given)
    for _, owner, core in sorted(
        (_distance(top, device, core), owner, core) for owner, device in enumerate(devices) for core in given
    ):
        if core in free and len(dealt[owner]) < quota:
            dealt[owner].append(core)
            free.remove(core)
    return tuple(tuple(sorted(cores)) for cores in dealt)


def _distance(top: Topology, device: int, core: int) -> int:
    if core in top.near_cores[device]:
        return 0
    numa = top.numa[device]
    neighbours = (other for other in range(top.devices) if top.numa[other] == numa)
    return 1 if any(core in top.near_cores[other] for other in neighbours) else 2


def judge(top: Topology, rows: Sequence[Row], *, world_size: int, whole_node: bool) -> Verdict:
    """Read the table of all ranks against the site's topology and the job's world size.

    On whole nodes a rank that may run on a core away from its device is a fault; on part of a node the cores were
    Slurm's choice, so it is a remark.
    """
    faults = [*_world_faults(rows, world_size), *_sharing_faults(rows)]
    misplaced = [sentence for row in rows for sentence in _misplaced(top, row)]
    if whole_node:
        return Verdict(faults=(*faults, *misplaced))
    return Verdict(faults=tuple(faults), remarks=tuple(misplaced))


def _world_faults(rows: Sequence[Row], world_size: int) -> list[str]:
    missing = sorted(set(range(world_size)) - {row.rank for row in rows})
    faults = [f"rank {rank} of {world_size} never reported" for rank in missing]
    faults += [
        f"rank {row.rank} thinks the world has {row.world_size} ranks, the job was made for {world_size}"
        for row in rows
        if row.world_size != world_size
    ]
    ranks = [row.rank for row in rows]
    faults += [
        f"rank {rank} reported {ranks.count(rank)} times" for rank in sorted(set(ranks)) if ranks.count(rank) > 1
    ]
    return faults


def _sharing_faults(rows: Sequence[Row]) -> list[str]:
    faults = []
    owners: dict[tuple[int, int], int] = {}
    for row in rows:
        if row.device is None:
            continue
        first = owners.setdefault((row.node_rank, row.device), row.rank)
        if first != row.rank:
            faults.append(f"ranks {first} and {row.rank} on {row.host} both use device {row.device}")
    return faults


def _misplaced(top: Topology, row: Row) -> list[str]:
    if row.device is None or row.device >= top.devices:
        return [f"rank {row.rank} on {row.host} uses device {row.device}, the node has {top.devices}"]
    near = set(top.near_cores[row.device])
    if row.cores and set(row.cores) <= near:
        return []
    seen = format_cores(row.cores) or "no core"
    where = f"its device {row.device} sits next to {format_cores(near)}"
    return [f"rank {row.rank} on {row.host} may run on {seen}, but {where}"]
