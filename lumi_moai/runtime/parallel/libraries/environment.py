"""What a library looks at to learn that it is one of several processes; where the ranks are one device, it finds one.

The variables are those of torchrun, of Slurm's tasks and of MPI. The job's own (`SLURM_JOB_ID` and the like) stay.
"""

import os
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import torch.distributed as dist

_OF_RANKS = re.compile(
    r"(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_|GROUP_)?WORLD_SIZE|ROLE_(RANK|NAME|WORLD_SIZE)|TORCHELASTIC_\w+"
    r"|SLURM_(PROCID|LOCALID|NODEID|GTIDS|TASK_PID)|SLURM_(STEP_)?(NTASKS\w*|NPROCS|TASKS_PER_NODE|NUM_TASKS)"
    r"|PMI_\w+|PMIX_RANK|OMPI_COMM_WORLD_\w+|MV2_COMM_WORLD_\w+|MPI_LOCAL\w+"
)
_MAY_KNOW = ("torch", __name__.partition(".")[0])


def hide(environ: MutableMapping[str, str] = os.environ) -> None:
    """Take out of *environ* what says that this process is one of several."""
    for name in [name for name in environ if _OF_RANKS.fullmatch(name)]:
        del environ[name]


def install(engine: Callable[[], Any]) -> None:
    """From now on only torch and we learn, while an engine runs, that there is a process group."""
    own = dist.is_initialized

    def is_initialized() -> bool:
        asking = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        return own() and (engine() is None or asking in _MAY_KNOW)

    is_initialized.__doc__ = own.__doc__
    dist.is_initialized = is_initialized
