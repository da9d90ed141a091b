"""What this process knows about itself once it has been started as a rank; nothing when a script runs by itself."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from subprocess import Popen

from ..binding import Launch
from ..plan import Wishes
from .output import Muted
from .ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Here:
    """This rank, its job, its run folder."""

    ranks: Ranks
    launch: Launch
    run: Path
    wishes: Wishes = field(default_factory=Wishes)
    """What the user asked of the runtime."""
    streams: tuple[Muted, ...] = ()
    """The script's stdout and stderr on ranks other than 0, which can be silenced."""
    port_holder: socket | None = None
    """On rank 0, keeps the port that the ranks agreed on from being given to anybody else."""
    recorder: "Popen[bytes] | None" = None
    """On the first rank of a node, the process that writes down what the node does."""

    @property
    def checkpoints(self) -> Path:
        """Where this job saves its checkpoints; the runs of an array share a run folder."""
        index = self.ranks.array_index
        return self.run / "checkpoints" / ("" if index is None else f"array-{index}")

    @property
    def devices_shared_by(self) -> int:
        """How many ranks share one device's memory: 1, or all ranks of the node where the CPU stands in."""
        return 1 if self.launch.bind else self.ranks.local_world_size


_KNOWN: list[Here] = []


def remember(here: Here) -> None:
    """Keep what `here` returns from now on."""
    _KNOWN[:] = [here]


def here() -> Here | None:
    """This rank; None outside the runtime, where a plain `python train.py` is one device."""
    return _KNOWN[0] if _KNOWN else None


def is_in_thread() -> bool:
    """Whether this is a thread beside the script's own: what it does comes at another moment on each rank."""
    return threading.current_thread() is not threading.main_thread()
