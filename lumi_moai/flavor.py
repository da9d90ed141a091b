"""What a user asks for under a short name, and what that name means on a site."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from .errors import RequestError, did_you_mean
from .site import Partition, Site
from .units import format_minutes


@dataclass(frozen=True, kw_only=True)
class Flavor:
    """One line of the flavor menu (`configs/flavors/moai.yaml`)."""

    name: str
    number: int
    memory_gb: int
    devices: int
    """Devices on the machine that the menu was made for, where each holds 64 GB."""

    @property
    def full_name(self) -> str:
        """The name as the menu prints it: `8xLarge.4096GB`."""
        return f"{self.name}.{self.memory_gb}GB"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Every spelling that means this flavor, in lower case."""
        return (self.name.lower(), self.full_name.lower(), str(self.number), f"flavor-default-{self.devices}")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a flavor lands on a site. `memory_gib` and `cores_per_device` hold for each node."""

    flavor: Flavor
    partition: Partition
    nodes: int
    devices_per_node: int
    cores_per_device: int
    memory_gib: int
    whole_node: bool

    @property
    def devices(self) -> int:
        """Devices of the whole job, and so its number of ranks."""
        return self.nodes * self.devices_per_node


def find(word: str, flavors: Iterable[Flavor]) -> Flavor:
    """The flavor that *word* means: name, full name, menu number or `flavor-default-N`, in any case.

    Raises RequestError with the nearest name.
    """
    by_alias = {alias: flavor for flavor in flavors for alias in flavor.aliases}
    found = by_alias.get(word.strip().lower())
    if found is None:
        names = [flavor.name for flavor in by_alias.values()]
        hint = did_you_mean(word.partition(".")[0], names)
        raise RequestError(f"{word!r} is not a flavor{hint or '; `lumi-moai flavors` lists them'}")
    return found


def place(site: Site, flavor: Flavor, *, minutes: int, partition: str | None = None) -> Placement:
    """Put *flavor* on *site* for *minutes*, in *partition* when one is named.

    Raises RequestError when no partition takes it, naming those that would.
    """
    if partition is not None:
        chosen = fit(site, flavor, site.partition(partition))
        _check_limits(site, flavor, chosen, minutes)
        return chosen
    fits = [fit(site, flavor, candidate) for candidate in site.partitions.values() if _sells_devices(site, candidate)]
    chosen = min((f for f in fits if f.partition.choose), key=lambda f: _preference(site, f))
    _check_limits(site, flavor, chosen, minutes)
    return chosen


def fit(site: Site, flavor: Flavor, partition: Partition) -> Placement:
    """The shape of *flavor* in *partition*, limits not yet looked at.

    Devices are those that hold the flavor's memory, spread evenly over as few nodes as they need; where only whole
    nodes are sold the flavor is rounded up to them.

    Raises RequestError for a partition without devices.
    """
    node = site.node(partition)
    device = site.device(node)
    if device is None:
        raise RequestError(f"partition {partition.name} of site {site.name} has no devices; {_others(site, partition)}")
    wanted = ceil(flavor.memory_gb / device.memory_gb)
    nodes = ceil(wanted / node.devices)
    per_node = ceil(wanted / nodes)
    whole = per_node == node.devices or partition.allocation == "node"
    per_node = node.devices if whole else per_node
    return Placement(
        flavor=flavor,
        partition=partition,
        nodes=nodes,
        devices_per_node=per_node,
        cores_per_device=node.cores_per_device,
        memory_gib=node.memory_gib if whole else per_node * node.memory_gib_per_device,
        whole_node=whole,
    )


def _sells_devices(site: Site, partition: Partition) -> bool:
    return bool(site.node(partition).devices)


def _preference(site: Site, placement: Placement) -> tuple[int, int, bool]:
    """Few devices first (no idle ones), then parts where the flavor is a part and whole nodes where it is whole."""
    part = placement.devices_per_node < site.node(placement.partition).devices
    suits = placement.partition.allocation == ("resource" if part else "node")
    too_many_nodes = placement.nodes > placement.partition.max_nodes
    return (too_many_nodes, placement.devices, not suits)


def _check_limits(site: Site, flavor: Flavor, placement: Placement, minutes: int) -> None:
    partition = placement.partition
    problems = []
    if placement.nodes > partition.max_nodes:
        most = f"{partition.max_nodes} node{'s' if partition.max_nodes > 1 else ''}"
        problems.append(f"{flavor.name} needs {placement.nodes} nodes and partition {partition.name} gives {most}")
    if minutes > partition.max_minutes:
        limit = format_minutes(partition.max_minutes)
        problems.append(f"{format_minutes(minutes)} is over the limit {limit} of partition {partition.name}")
    if problems:
        raise RequestError(f"{' and '.join(problems)}; {_takers(site, flavor, minutes)}")


def _takers(site: Site, flavor: Flavor, minutes: int) -> str:
    names = [
        candidate.name
        for candidate in site.partitions.values()
        if _sells_devices(site, candidate)
        and fit(site, flavor, candidate).nodes <= candidate.max_nodes
        and minutes <= candidate.max_minutes
    ]
    return f"it would fit in: {', '.join(names)}" if names else f"no partition of site {site.name} takes that"


def _others(site: Site, partition: Partition) -> str:
    names = [p.name for p in site.partitions.values() if p is not partition and _sells_devices(site, p)]
    return f"partitions with devices: {', '.join(names)}"
