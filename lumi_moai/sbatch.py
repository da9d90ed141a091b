"""What `#SBATCH` lines, or the same options on a command line, ask of Slurm, and what that blocks.

Only what a price depends on is read. The script's shell part is not: Slurm does not look at it either, and takes
variables in `#SBATCH` lines as plain text. What cannot be known is said in a note, never guessed silently.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from .errors import RequestError
from .site import Node, Partition, Site
from .units import format_gib, format_minutes, parse_gib, parse_minutes
from .usage import Usage

# Slurm's short spellings of the options that matter here; the rest are known only to take a value.
_SHORT = {
    "A": "account", "a": "array", "c": "cpus-per-task", "G": "gpus", "N": "nodes", "n": "ntasks",
    "p": "partition", "t": "time",
}  # fmt: skip
_FLAGS = frozenset("HhIkOQsVvWX")
_NUMBERS = {
    "ntasks": "ntasks",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "cpus-per-gpu": "cpus_per_device",
    "gpus": "devices",
    "gpus-per-node": "devices_per_node",
    "gpus-per-task": "devices_per_task",
}
_GRES = re.compile(r"(?:^|,)(?:gres[:/])?gpu(?::[A-Za-z]\w*)?(?::(\d+))?(?=$|[,(])")
_SIZES = {"mem": "memory_gib", "mem-per-cpu": "memory_gib_per_cpu", "mem-per-gpu": "memory_gib_per_device"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of a job as they were given; None for what was not said. Memory in GiB, times in minutes."""

    partition: str | None = None
    account: str | None = None
    minutes: int | None = None
    nodes: int | None = None
    ntasks: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    cpus_per_device: int | None = None
    devices: int | None = None
    devices_per_node: int | None = None
    devices_per_task: int | None = None
    memory_gib: float | None = None
    """Per node; 0 is Slurm's word for all memory of the node."""
    memory_gib_per_cpu: float | None = None
    memory_gib_per_device: float | None = None
    exclusive: bool = False
    array_tasks: int = 1
    notes: tuple[str, ...] = ()
    """What could not be read, one sentence each."""


def read(script: str) -> Asked:
    """The options in the `#SBATCH` lines of *script*.

    Raises RequestError for a text without any such line.
    """
    values: dict[str, object] = {}
    notes: list[str] = []
    lines = _directives(script)
    if not lines:
        raise RequestError("there is no #SBATCH line in it, so it does not say what it needs; give it as options")
    for line in lines:
        if line.split()[:1] == ["hetjob"]:
            notes.append("only the first part of a heterogeneous job is counted")
            break
        for name, text in _options(line, notes):
            values |= _value(name, text, notes)
    return Asked(**values, notes=tuple(notes))  # type: ignore[arg-type]


def _directives(script: str) -> list[str]:
    """The texts after `#SBATCH`; Slurm stops at the first line that is neither blank nor a comment."""
    found = []
    for line in script.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if match := re.match(r"#SBATCH\s+(.*)", line):
            found.append(match[1])
    return found


def _options(line: str, notes: list[str]) -> Iterator[tuple[str, str]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        notes.append(f"`#SBATCH {line.strip()}` has an open quote")
        words = line.split()
    while words:
        word = words.pop(0)
        if match := re.fullmatch(r"--([a-z][a-z-]*)(?:=(.*))?", word, re.DOTALL):
            takes_next = match[2] is None and words and not words[0].startswith("-") and match[1] != "exclusive"
            yield match[1], words.pop(0) if takes_next else match[2] or ""
        elif match := re.fullmatch(r"-([A-Za-z])(.*)", word, re.DOTALL):
            takes_next = not match[2] and words and match[1] not in _FLAGS
            yield _SHORT.get(match[1], ""), words.pop(0) if takes_next else match[2].removeprefix("=")


def _value(name: str, text: str, notes: list[str]) -> Mapping[str, object]:
    """The field of `Asked` that the option sets; nothing for options that cost nothing, a note for unreadable ones."""
    try:
        if name in _NUMBERS:
            return {_NUMBERS[name]: _number(text.rpartition(":")[2])}  # a type may stand in front: TYPE:8
        if name in _SIZES:
            return {_SIZES[name]: parse_gib(text)}
        if name == "nodes":
            return {"nodes": _number(text.rpartition("-")[2])}  # of 2-4 the larger: it is what may be billed
        return _others(name, text)
    except RequestError:
        notes.append(f"`{name}={text}` cannot be read; Slurm takes variables in #SBATCH lines as plain text")
        return {}


def _others(name: str, text: str) -> Mapping[str, object]:
    if name in ("partition", "account"):
        return {name: text.partition(",")[0]} if text else {}
    if name == "time":
        return {"minutes": parse_minutes(text)}
    if name == "exclusive":
        return {"exclusive": True}
    if name == "array":
        return {"array_tasks": _array_tasks(text)}
    if name == "gres" and (counts := _GRES.findall(text)):
        return {"devices_per_node": sum(_number(count or "1") for count in counts)}
    return {}


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise RequestError(f"{text!r} is not a number")
    return int(text)


def _array_tasks(text: str) -> int:
    """How many tasks `0-9%4`, `1,3,5` or `0-15:4` means."""
    tasks = 0
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::([1-9]\d{0,8}))?)?", part, re.ASCII)
        if not match:
            raise RequestError(f"{text!r} is not a list of array indices")
        tasks += len(range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1)))
    return tasks


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
