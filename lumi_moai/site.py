"""A cluster as data: its nodes, partitions, prices, containers and environment. Read by `catalog`, never changed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import RequestError, did_you_mean
from .units import parse_cores, parse_minutes

# A field's metadata tells the reader of site files how its value is written there: `key` is the name in the file,
# `parse` turns the text into the value.
_CORES = {"parse": parse_cores}


def _regular(text: str) -> str:
    """*text*, which has to be a regular expression."""
    try:
        re.compile(str(text))
    except (re.error, RecursionError, OverflowError) as error:
        raise RequestError(f"{text!r} is no regular expression: {error}") from error
    return str(text)


_REGULAR = {"parse": _regular}


@dataclass(frozen=True, kw_only=True)
class Device:
    """What Slurm counts as one GPU: on some machines a die, on others a whole package (`configs/devices/*.yaml`)."""

    name: str
    label: str
    source: str
    memory_gb: int
    """Memory in the unit of the flavor table (10^9 bytes as the vendors print it)."""
    memory_mib: int
    """Memory that a user can see, MiB."""
    per_package: int = 1
    """Devices that share one package, and with it one power sensor."""
    package_watts: int | None = None
    peak_tflops: Mapping[str, float] = field(default_factory=dict)
    """Dense matrix peak of one device by data type, 10^12 operations per second."""
    memory_gb_per_second: float | None = None
    monitor: tuple[str, ...] = ()
    """Sources of live values, the first that answers is taken: names of `monitor` readers."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one device of a node sits; a node lists its slots in device order."""

    cores: tuple[int, ...] = field(metadata=_CORES)
    """The usable cores next to the device."""
    numa: int = 0
    bus: str | None = None
    nic: str | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """One kind of node. Cores are physical cores; the second hardware thread of core n is n + number of cores."""

    source: str
    cores: tuple[int, ...] = field(metadata=_CORES)
    memory_gib: int
    """Memory that jobs may ask for."""
    reserved_cores: tuple[int, ...] = field(default=(), metadata=_CORES)
    threads_per_core: int = 1
    device: str | None = None
    """Name of the device, a file in `configs/devices/`."""
    slots: tuple[Slot, ...] = ()
    cores_per_device: int = 1
    memory_gib_per_device: int = 1
    bind: bool = True
    """Whether ranks are bound at all; a laptop's cores belong to its user."""

    @property
    def devices(self) -> int:
        """How many devices the node has."""
        return len(self.slots)

    @property
    def usable_cores(self) -> tuple[int, ...]:
        """The cores that Slurm gives to jobs."""
        return tuple(core for core in self.cores if core not in self.reserved_cores)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What one billing slice holds; the resource that needs most slices decides the price."""

    devices: int | None = None
    cores: int | None = None
    memory_gib: float | None = None


@dataclass(frozen=True, kw_only=True)
class BillingRule:
    """Price of an hour: `per_node` for whole nodes, or `per_slice` times the slices of the deciding resource."""

    unit: str
    per_node: float | None = None
    per_slice: float | None = None
    slice: Slice | None = None
    allocation: str | None = None
    """Which balance of the project pays: the prefix of the keys in the site's allocation file (`gpu`, `cpu`)."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class StorageRule:
    """Price of a terabyte for an hour."""

    unit: str
    per_tb: float
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One queue of the site."""

    name: str
    node: str
    allocation: Literal["node", "resource"]
    """Sold as whole nodes, or by the resource."""
    max_minutes: int = field(metadata={"key": "max_time", "parse": parse_minutes})
    max_nodes: int
    billing: str
    max_jobs: int | None = None
    max_running_jobs: int | None = None
    default_memory_gib: float | None = None
    """What a job gets that asks for no memory; None where that is the whole node."""
    default_memory_gib_per_core: float | None = None
    """The same where it goes by the cores of the job."""
    choose: bool = True
    """Whether a flavor may land here without being told to."""
    note: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One environment variable of every job, with the reason why it is there."""

    name: str
    value: str
    reason: str
    source: str = ""
    min_nodes: int = 1
    only_containers: bool = False
    """Left out when the job runs on the host's own Python."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A variable that names a folder, made on every node before the ranks start."""

    variable: str
    folder: str
    reason: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class ShellLine:
    """A line of shell that a container needs before it starts, as the site's own documentation gives it."""

    line: str
    reason: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Container:
    """How a command is wrapped to run in an image."""

    name: str
    image: str
    command: tuple[str, ...]
    reason: str
    python: str = "python"
    setup: tuple[ShellLine, ...] = ()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Recognise:
    """How to tell that this host belongs to the site; any one that holds is enough."""

    cluster: str | None = None
    """Slurm's ClusterName."""
    environment: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobPolicy:
    """What every job of the site says about itself unless the user says otherwise."""

    default_minutes: int = field(metadata={"key": "default_time", "parse": parse_minutes})
    requeue: bool = True
    signal: str = "USR2"
    """Sent to the ranks ahead of the time limit; NCCL is known to catch USR1."""
    signal_seconds: int = 120
    wait_seconds: int = 60
    """`srun --wait`: how long the other ranks may outlive the first that ended."""
    account_required: bool = True
    account_pattern: str | None = field(default=None, metadata=_REGULAR)
    account_hint: str = ""
    cache_root: str = "/tmp"  # noqa: S108  # made with a job's own name and mode 700
    """A folder local to each node."""
    gpus_option: str = "gpus-per-node"
    """How devices are asked for, per node and never per task."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Something that people write and that is wrong or useless here, for `lumi-moai check`."""

    pattern: str = field(metadata=_REGULAR)
    """A regular expression that is looked for in what is written."""
    reason: str
    source: str = ""
    severity: Literal["error", "warning", "note"] = "warning"
    image: str | None = field(default=None, metadata=_REGULAR)
    """Holds only in jobs whose container's image matches this."""
    instead: str | None = None
    """What stands in its place after `--fix`; an empty text takes the whole line out."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What `lumi-moai check` knows of a site besides its limits and prices."""

    srun_takes_cpus: bool = False
    """Whether `srun` takes `--cpus-per-task` over from sbatch, as Slurm did before 22.05."""
    visible_devices: tuple[str, ...] = ()
    """Variables that narrow the devices a program sees: the first, and those that number what it leaves."""
    home: tuple[str, ...] = ()
    """Beginnings of paths with a small quota."""
    shared: tuple[str, ...] = ()
    """Beginnings of paths on the parallel file system."""
    variables: tuple[Advice, ...] = ()
    """On `NAME=VALUE`."""
    options: tuple[Advice, ...] = ()
    """On `--name=value` of an `#SBATCH` line."""
    commands: tuple[Advice, ...] = ()
    """On the words of a command, a blank between them."""
    images: tuple[Advice, ...] = ()
    """On `verb image` of a container's program, such as `exec /path/x.sif`."""
    inside: tuple[str, ...] = ()
    """Variables that exist in the container only."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything about one cluster that a job depends on."""

    name: str
    title: str
    scheduler: Literal["slurm", "local"]
    sources: tuple[str, ...]
    device_name: str
    """What `smi` calls the accelerator."""
    recognise: Recognise
    policy: JobPolicy
    nodes: Mapping[str, Node]
    partitions: Mapping[str, Partition]
    billing: Mapping[str, BillingRule]
    storage: Mapping[str, StorageRule] = field(default_factory=dict)
    environment: tuple[Variable, ...] = ()
    caches: tuple[Cache, ...] = ()
    containers: Mapping[str, Container] = field(default_factory=dict)
    default_container: str | None = None
    allocation_file: str | None = None
    """Where the balance of a project lies as JSON; `{account}` stands for the project."""
    device_files: tuple[str, ...] = ()
    """Patterns of files, one for each real device of this very host (sites without a scheduler)."""
    check: Checks = field(default_factory=Checks)
    template: str = "job.sbatch.j2"
    template_folder: str | None = None
    """Absolute folder of the site file, set when it was read, so that a site can bring its own template."""
    devices: Mapping[str, Device] = field(default_factory=dict, metadata={"key": None})
    """The devices of its nodes by name, put there by the reader of site files."""

    def partition(self, name: str) -> Partition:
        """The partition called *name*.

        Raises RequestError with the names that exist.
        """
        if name in self.partitions:
            return self.partitions[name]
        raise RequestError(
            f"site {self.name} has no partition {name!r}{did_you_mean(name, self.partitions)}"
            f" (it has {', '.join(self.partitions)})"
        )

    def node(self, partition: Partition) -> Node:
        """The kind of node behind *partition*."""
        return self.nodes[partition.node]

    def device(self, node: Node) -> Device | None:
        """The device in *node*, None for a node without any."""
        return self.devices[node.device] if node.device else None

    def rule(self, partition: Partition) -> BillingRule:
        """The billing rule of *partition*."""
        return self.billing[partition.billing]
