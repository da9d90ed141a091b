"""What the options of a job block on a site, until its time limit."""

from math import ceil

from ..errors import RequestError
from ..site import Node, Partition, Site
from ..units import format_gib, format_minutes
from ..usage import Usage
from .asked import Asked


def usage(site: Site, asked: Asked) -> tuple[Usage, tuple[str, ...]]:
    """What *asked* blocks on *site* until its time limit (for one task of an array), and notes on what was assumed.

    Raises RequestError without a partition, or for more devices, cores or memory than its nodes have.
    """
    if not asked.partition:
        raise RequestError(f"no partition is named; say --partition (site {site.name}: {', '.join(site.partitions)})")
    partition = site.partition(asked.partition)
    node = site.node(partition)
    notes = list(asked.notes)
    nodes, devices = _shape(asked, node)
    cores = _cores(asked, nodes, devices)
    _check(partition, node, devices=devices, cores=cores)
    memory = _memory(asked, partition, node, cores=cores, devices=devices, notes=notes)
    minutes = _minutes(site, asked, partition, notes)
    if nodes > partition.max_nodes:
        notes.append(f"partition {partition.name} takes {partition.max_nodes} nodes a job at most: Slurm refuses this")
    # Whole nodes are blocked whatever is asked for, but what was asked for tells whether parts would do.
    all_devices = asked.exclusive or (partition.allocation == "node" and not devices)
    all_cores = asked.exclusive or (partition.allocation == "node" and asked.cpus_per_task is None)
    blocked = Usage(
        partition=partition.name,
        nodes=nodes,
        devices=node.devices * nodes if all_devices else min(asked.devices or devices * nodes, devices * nodes),
        cores=(len(node.usable_cores) if all_cores else cores) * nodes,
        memory_gib=memory * nodes,
        hours=minutes / 60,
    )
    return blocked, tuple(notes)


def _shape(asked: Asked, node: Node) -> tuple[int, int]:
    """Nodes, and devices on each of them."""
    tasks = asked.tasks_per_node
    by_tasks = ceil(asked.ntasks / tasks) if asked.ntasks and tasks else 1
    nodes = asked.nodes or max(by_tasks, ceil((asked.devices or 0) / node.devices) if node.devices else 1, 1)
    if asked.devices_per_node is not None:
        return nodes, asked.devices_per_node
    if asked.devices is not None:
        return nodes, ceil(asked.devices / nodes)
    return nodes, (asked.devices_per_task or 0) * _tasks(asked, nodes)


def _tasks(asked: Asked, nodes: int) -> int:
    """Tasks on a node; Slurm starts one where nothing is said."""
    return asked.tasks_per_node or ceil((asked.ntasks or nodes) / nodes)


def _cores(asked: Asked, nodes: int, per_node: int) -> int:
    """Cores on a node."""
    if asked.cpus_per_device is not None and asked.cpus_per_task is None:
        return asked.cpus_per_device * per_node
    return _tasks(asked, nodes) * (asked.cpus_per_task or 1)


def _check(partition: Partition, node: Node, *, devices: int, cores: int) -> None:
    for name, wanted, most in (("devices", devices, node.devices), ("cores", cores, len(node.usable_cores))):
        if wanted > most:
            raise RequestError(
                f"{wanted} {name} on a node are asked for, a node of partition {partition.name} has {most}; "
                "ask for less, or for more nodes"
            )


def _memory(asked: Asked, partition: Partition, node: Node, *, cores: int, devices: int, notes: list[str]) -> float:
    """GiB on a node."""
    most = float(node.memory_gib)
    if asked.memory_gib == 0:
        return most
    pairs = [(asked.memory_gib, 1), (asked.memory_gib_per_cpu, cores), (asked.memory_gib_per_device, devices)]
    wanted = next((gib * count for gib, count in pairs if gib is not None), None)
    if wanted is None:
        return _default_memory(partition, most, cores, notes)
    if wanted > most:
        raise RequestError(
            f"{format_gib(wanted)} of memory on a node are asked for, partition {partition.name} gives at most "
            f"{format_gib(most)}; ask for less, or for more nodes"
        )
    return wanted


def _default_memory(partition: Partition, most: float, cores: int, notes: list[str]) -> float:
    if partition.allocation == "node":
        return most
    by_core = partition.default_memory_gib_per_core
    memory = partition.default_memory_gib if by_core is None else min(by_core * cores, most)
    memory = most if memory is None else memory
    what = "the default" if memory < most else "all that a node has"
    notes.append(f"no memory is asked for: {format_gib(memory)} a node is counted, {what} in {partition.name}")
    return memory


def _minutes(site: Site, asked: Asked, partition: Partition, notes: list[str]) -> int:
    limit = format_minutes(partition.max_minutes)
    if asked.minutes is None:
        minutes = min(site.policy.default_minutes, partition.max_minutes)
        notes.append(f"no time is asked for: {format_minutes(minutes)} is counted; say --time (at most {limit})")
        return minutes
    if asked.minutes > partition.max_minutes:
        notes.append(f"partition {partition.name} runs jobs for at most {limit}, so Slurm refuses this time")
    return asked.minutes
