"""Who am I: the variables of torchrun, of submitit's local executor or of Slurm become one `Ranks`."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..errors import BindingError


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The place of this process in the job; the words are torch's."""

    rank: int = 0
    local_rank: int = 0
    node_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    key: str
    """Name of the job: `123`, in an array `123_4`."""
    restart: int = 0
    """How often the job was requeued."""
    attempt: str = ""
    """Tells apart what `key` and `restart` do not: the steps of one job, torchrun's restarts of its workers."""
    array_index: int | None = None
    master_addr: str | None = None
    master_port: int | None = None
    """Where rank 0 will listen; None until the ranks agreed (`meeting.settle`)."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be true together.

        Raises BindingError.
        """
        checks = [
            ("rank", self.rank, self.world_size),
            ("local rank", self.local_rank, self.local_world_size),
            ("number of other ranks on the node", self.local_world_size - 1, self.world_size),
        ]
        for name, value, limit in checks:
            if not 0 <= value < limit:
                raise BindingError(
                    f"the {name} is {value}, it must be from 0 to {limit - 1}: the variables that number the ranks"
                    " contradict each other, start the job with its own script"
                )

    @property
    def label(self) -> str:
        """Name of this attempt of the job, for files."""
        return f"{self.key}-r{self.restart}"

    def environment(self) -> dict[str, str]:
        """The variables that torch and other libraries read."""
        values = {
            "RANK": self.rank,
            "LOCAL_RANK": self.local_rank,
            "WORLD_SIZE": self.world_size,
            "LOCAL_WORLD_SIZE": self.local_world_size,
            "NODE_RANK": self.node_rank,
            "GROUP_RANK": self.node_rank,
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": self.master_port,
            "LUMI_MOAI_ARRAY_INDEX": self.array_index,
        }
        return {name: str(value) for name, value in values.items() if value is not None}


def read(environ: Mapping[str, str]) -> Ranks:
    """The ranks that *environ* describes: torchrun's variables come first, then submitit's, then Slurm's.

    Without any of them the process is the only rank of its job. Raises BindingError for a variable that is missing,
    no number, or at odds with another.
    """
    for belongs, reader in _READERS:
        if belongs in environ:
            ranks = reader(environ)
            break
    else:
        ranks = Ranks(key=f"pid-{os.getpid()}")
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if address and port:
        ranks = replace(ranks, master_addr=address, master_port=_number(environ, "MASTER_PORT"))
    index = environ.get("SLURM_ARRAY_TASK_ID") or environ.get("LUMI_MOAI_ARRAY_INDEX")
    return replace(ranks, array_index=int(index)) if index and index.isdecimal() else ranks


def _torchrun(environ: Mapping[str, str]) -> Ranks:
    tasks, nodes = environ.get("SLURM_STEP_NUM_TASKS"), environ.get("SLURM_STEP_NUM_NODES")
    if tasks and nodes and tasks != nodes:
        raise BindingError(
            f"torchrun was started {tasks} times on {nodes} nodes; it starts the ranks of a node itself,"
            " so give srun --ntasks-per-node=1"
        )
    again = _number(environ, "TORCHELASTIC_RESTART_COUNT", 0)
    return Ranks(
        rank=_number(environ, "RANK"),
        local_rank=_number(environ, "LOCAL_RANK"),
        node_rank=_number(environ, "GROUP_RANK"),
        world_size=_number(environ, "WORLD_SIZE"),
        local_world_size=_number(environ, "LOCAL_WORLD_SIZE"),
        key=_slurm_key(environ) or _as_name(environ["TORCHELASTIC_RUN_ID"]),
        restart=_number(environ, "SLURM_RESTART_COUNT", 0),
        attempt=_attempt(environ) + (f"-again{again}" if again else ""),
    )


def _submitit(environ: Mapping[str, str]) -> Ranks:
    tasks = _number(environ, "SUBMITIT_LOCAL_NTASKS")
    return Ranks(
        rank=_number(environ, "SUBMITIT_LOCAL_GLOBALID"),
        local_rank=_number(environ, "SUBMITIT_LOCAL_LOCALID"),
        node_rank=_number(environ, "SUBMITIT_LOCAL_NODEID", 0),
        world_size=tasks,
        local_world_size=tasks // _number(environ, "SUBMITIT_LOCAL_JOB_NUM_NODES", 1),
        key=_as_name(environ["SUBMITIT_LOCAL_JOB_ID"]),
    )


def _slurm(environ: Mapping[str, str]) -> Ranks:
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS")
    node_rank = _number(environ, "SLURM_NODEID", 0)
    return Ranks(
        rank=_number(environ, "SLURM_PROCID"),
        local_rank=_number(environ, "SLURM_LOCALID"),
        node_rank=node_rank,
        world_size=tasks,
        local_world_size=_tasks_of_node(environ, node_rank, tasks),
        key=_slurm_key(environ) or f"pid-{os.getppid()}",
        restart=_number(environ, "SLURM_RESTART_COUNT", 0),
        attempt=_attempt(environ),
    )


_READERS: tuple[tuple[str, Callable[[Mapping[str, str]], Ranks]], ...] = (
    ("TORCHELASTIC_RUN_ID", _torchrun),
    ("SUBMITIT_LOCAL_GLOBALID", _submitit),
    ("SLURM_PROCID", _slurm),
)


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        raise BindingError(f"{name} is not set, so this rank cannot know its place; start the job with its own script")
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise BindingError(f"{name} is {text!r}, not a whole number; start the job with its own script")
    return int(text)


def _tasks_of_node(environ: Mapping[str, str], node_rank: int, tasks: int) -> int:
    counts = _tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE") or "")
    if sum(counts) == tasks and node_rank < len(counts):
        return counts[node_rank]
    nodes = _number(environ, "SLURM_STEP_NUM_NODES" if "SLURM_STEP_NUM_NODES" in environ else "SLURM_NNODES", 1)
    return _number(environ, "SLURM_NTASKS_PER_NODE", -(-tasks // nodes))


def _tasks_per_node(text: str) -> list[int]:
    """Slurm's `8(x2),4` as one number per node."""
    parts = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part, re.ASCII) for part in text.split(",")]
    return [int(part[1]) for part in parts if part for _ in range(int(part[2] or 1))]


def _slurm_key(environ: Mapping[str, str]) -> str:
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")


def _attempt(environ: Mapping[str, str]) -> str:
    # A job script has one step, number 0; somebody who types srun twice in one allocation gets steps of his own.
    step = environ.get("SLURM_STEP_ID", "0")
    return "" if step == "0" else f"-step{_as_name(step)}"


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text) or "job"
