"""The folder where the ranks of one attempt leave notes for each other before there is any network between them.

A note is a small JSON file, written beside and then renamed, so that a reader sees all of it or nothing.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BindingError, RunError
from .ranks import Ranks

POLL_SECONDS = 0.05
SLOWEST_POLL_SECONDS = 0.5
_LISTENS_SECONDS = 60.0
"""For rank 0 to listen; torch goes on asking then."""
_CONNECTS_SECONDS = 5.0


@dataclass(frozen=True)
class Meeting:
    """The notes of one attempt of one job."""

    folder: Path

    def post(self, name: str, data: object) -> None:
        """Leave *data* under *name*.

        Raises RunError when the run folder cannot be written.
        """
        write_json(self.folder / f"{name}.json", data)

    def claim(self, name: str, by: int) -> bool:
        """Whether rank *by* is the first to claim *name*; no second one is."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / name, "x", encoding="utf-8") as file:
                file.write(str(by))
        except OSError:
            return False
        return True

    def is_claimed(self, name: str) -> bool:
        """Whether some rank has claimed *name*."""
        return name in self._names()

    def read(self, name: str) -> Any:
        """The note called *name*, or None when there is none (yet)."""
        # On a network file system only opening the folder makes a new file of another node visible at once.
        if f"{name}.json" not in self._names():
            return None
        try:
            return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def collect(self, names: Iterable[str], seconds: float) -> dict[str, Any]:
        """The notes called *names* by name, as soon as all are there; after *seconds*, those that are."""
        wanted = list(names)
        found: dict[str, Any] = {}

        def complete() -> bool:
            here = self._names()
            for name in wanted:
                if name not in found and f"{name}.json" in here and (note := self.read(name)) is not None:
                    found[name] = note
            return len(found) == len(wanted)

        wait_until(complete, seconds)
        return found

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.folder))
        except OSError:
            return set()


def meet(run: Path, ranks: Ranks) -> Meeting:
    """The meeting of this attempt, in the run folder *run*."""
    return Meeting(run / "certificate" / "parts" / f"{ranks.label}{ranks.attempt}")


def write_json(path: Path, data: object) -> None:
    """Write *data* as JSON, all of it or nothing.

    Raises RunError with the reason of the file system.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(data) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror}); the run folder must be writable on every node"
        ) from error


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether *done* came true within *seconds*; asks often at first, then every half second."""
    end = time.monotonic() + seconds
    pause = POLL_SECONDS
    while not done():
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
        pause = min(pause * 1.2, SLOWEST_POLL_SECONDS)
    return True


def settle(ranks: Ranks, meeting: Meeting, seconds: float) -> tuple[Ranks, socket.socket | None]:
    """Give *ranks* the address where rank 0 will listen, if the job script has not.

    On one machine rank 0 takes a free port and tells the others. It keeps the port by a socket that is bound but does
    not listen, which the caller must hold: nobody else is given the port meanwhile, and torch may still listen there.
    Raises BindingError on several nodes, where only the job script can know the address.
    """
    if ranks.master_addr is not None:
        return ranks, None
    if ranks.local_world_size != ranks.world_size:
        raise BindingError(
            f"{ranks.world_size} ranks on several nodes need MASTER_ADDR and MASTER_PORT;"
            " start the job with its own script"
        )
    holder = None
    if ranks.rank == 0:
        holder = _free_port()
        meeting.post("port", holder.getsockname()[1])
    port = meeting.collect(["port"], seconds).get("port")
    if not isinstance(port, int):
        raise BindingError(f"rank 0 named no port within {seconds:g} s; look for its error in the log")
    return replace(ranks, master_addr="127.0.0.1", master_port=port), holder


def await_rank_0(environ: Mapping[str, str]) -> None:
    """Wait until something listens where rank 0 will: torch, once refused there, asks again ever more rarely.

    Ranks that came 5 s ahead of rank 0 joined it 1 to 3 s late (PyTorch 2.13). Torch tells all other trouble.
    """
    address = (environ["MASTER_ADDR"], int(environ["MASTER_PORT"]))
    if environ["RANK"] != "0":
        wait_until(lambda: _answers(address), _LISTENS_SECONDS)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECTS_SECONDS).close()
    except OSError as error:
        return not isinstance(error, ConnectionRefusedError)
    return True


def _free_port() -> socket.socket:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder
