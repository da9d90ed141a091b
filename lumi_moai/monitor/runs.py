"""Which runs hold devices right now, and what is known of them from their run folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import queue, rundir, slurm
from ..errors import RunError, SlurmError

_BUSY = ("RUNNING", "COMPLETING", "STOPPED", "SUSPENDED")
"""States in which a job holds its devices; a suspended one keeps its memory."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that holds devices, as its ledger entry and its `job.json` tell."""

    job_id: str
    name: str
    folder: rundir.RunFolder
    local: bool
    flavor: str
    partition: str
    nodes: int
    devices_per_node: int
    account: str | None
    command: str
    python: str
    pid: int | None = None
    """The controller of a local run."""

    @property
    def devices(self) -> int:
        """Devices of the whole run."""
        return self.nodes * self.devices_per_node


def unfinished(site: str) -> list[rundir.Entry]:
    """The runs on *site* whose end is not known, oldest first; nothing is asked of Slurm."""
    return [entry for entry in rundir.entries() if entry.site == site and entry.state is None]


def active(site: str) -> list[str]:
    """Job ids of the runs on *site* that wait or run, oldest first.

    One `squeue` call; where Slurm does not answer, every run whose end is not known counts.
    """
    entries = unfinished(site)
    try:
        queued = {row.job_id.split("_")[0] for row in _queue(entries)}
    except SlurmError:
        return [entry.job_id for entry in entries]
    return [entry.job_id for entry in entries if _is_active(entry, queued)]


def _is_active(entry: rundir.Entry, queued: set[str]) -> bool:
    if entry.scheduler == "slurm":
        return entry.job_id.split("_")[0] in queued
    try:
        return rundir.controller_of(rundir.RunFolder(Path(entry.folder))) is not None
    except RunError:  # its folder is gone, and with it the run
        return False


def _queue(entries: Sequence[rundir.Entry]) -> list[queue.Queued]:
    """The user's jobs in the queue; nothing is asked when none of *entries* could be there."""
    if not any(entry.scheduler == "slurm" for entry in entries):
        return []
    return queue.parse(slurm.squeue(), slurm.QUEUE_FIELDS)


def running(site: str) -> tuple[list[Run], list[str]]:
    """The runs that hold devices on *site*, oldest first, and a sentence for each that cannot be made out.

    One `squeue` call for all of them, none when nothing was submitted. Raises SlurmError when Slurm does not answer.
    """
    entries = unfinished(site)
    busy = [row.job_id for row in _queue(entries) if row.state in _BUSY]
    found: list[Run] = []
    remarks: list[str] = []
    for entry in entries:
        try:
            found += _runs(entry, busy)
        except RunError as error:
            remarks.append(f"run {entry.job_id} is passed over: {error}")
    return found, remarks


def _runs(entry: rundir.Entry, busy: Sequence[str]) -> list[Run]:
    """The job itself, or the tasks of an array that run now."""
    folder = rundir.RunFolder(Path(entry.folder))
    if entry.scheduler == "slurm":
        ids = [job_id for job_id in busy if job_id == entry.job_id or job_id.split("_")[0] == entry.job_id]
        return [_run(entry, folder, job_id=job_id) for job_id in ids]
    pid = rundir.controller_of(folder)
    return [] if pid is None else [_run(entry, folder, job_id=entry.job_id, pid=pid)]


def _run(entry: rundir.Entry, folder: rundir.RunFolder, *, job_id: str, pid: int | None = None) -> Run:
    job: dict[str, Any] = folder.job().get("job", {})
    try:
        return Run(
            job_id=job_id,
            name=entry.name,
            folder=folder,
            local=entry.scheduler != "slurm",
            flavor=job["flavor"],
            partition=job["partition"],
            nodes=job["nodes"],
            devices_per_node=job["devices_per_node"],
            account=job.get("account"),
            command=" ".join(["python", _as_typed(folder, job["command"][0]), *job["command"][1:]]),
            python=job["python"],
            pid=pid,
        )
    except (KeyError, TypeError, IndexError) as error:
        raise RunError(f"{folder.job_file} lacks {error}") from error


def _as_typed(folder: rundir.RunFolder, script: str) -> str:
    """The script's name in the user's folder, not in the snapshot that runs."""
    path = Path(script)
    return str(path.relative_to(folder.code)) if path.is_relative_to(folder.code) else script
