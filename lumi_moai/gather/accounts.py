"""What jobs took, by the cluster's accounting or a local run's own books, and what a project may still spend."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import queue, rundir, sacct, slurm
from ..errors import RunError, SlurmError
from ..report import LIVE
from ..rundir import RunFolder
from ..site import Site
from ..usage import Accounting, Balance, Usage

LAG_SECONDS = 6.0
"""How long the accounting may take to learn that a job has ended; on an idle cluster it takes one second."""
_UNKNOWN_SECONDS = 2.0


def part(plan: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object called *name* in a run's `job.json`, empty where it has none."""
    part = plan.get(name)
    return part if isinstance(part, dict) else {}


def accounts(job_id: str, site: Site | None, warnings: list[str]) -> tuple[Accounting, ...]:
    """The records of *job_id*; asked for again while they call a job live that the queue does not know any more."""
    if site is None:
        return ()
    began = time.monotonic()
    try:
        while True:
            found = sacct.parse(slurm.sacct([job_id]), site)
            patience = LAG_SECONDS if found else _UNKNOWN_SECONDS
            if found and all(each.state not in LIVE for each in found):
                return found
            if time.monotonic() - began > patience or _queued(job_id):
                return found
            time.sleep(1)
    except SlurmError as error:
        warnings.append(f"usage and bill are missing, because the accounting does not answer: {error}")
        return ()


def _queued(job_id: str) -> bool:
    base = re.split(r"[_+]", job_id)[0]
    return any(re.split(r"[_+]", row.job_id)[0] == base for row in queue.parse(slurm.squeue(), slurm.QUEUE_FIELDS))


def local_books(folder: RunFolder, plan: Mapping[str, Any], job_id: str) -> tuple[Accounting, ...]:
    """What sacct would say of a run on this machine, from its own books; while it runs, that it runs."""
    alive = rundir.controller_of(folder) is not None  # asked first: a controller writes its books before it ends
    try:
        books = rundir.read_json(folder.accounting)
    except RunError:
        books = {"state": "RUNNING" if alive else "NODE_FAIL", "reason": "" if alive else "its controller is gone"}
    seconds = int(books.get("elapsed_seconds") or 0)
    job, estimate = part(plan, "job"), part(plan, "estimate")
    usage = Usage(
        partition=str(job.get("partition", "")),
        nodes=1,
        devices=int(part(plan, "launch").get("world_size", 0)),
        cores=int(estimate.get("cores", 0)),
        memory_gib=float(estimate.get("memory_gib", 0)),
        hours=seconds / 3600,
    )
    codes = [code for code in books.get("exit_codes") or [0] if isinstance(code, int)]
    worst = next((code for code in codes if code), 0)
    took = Accounting(
        job_id=job_id,
        name=str(job.get("name", "")),
        state=str(books.get("state", "")),
        partition=usage.partition,
        account="",
        usage=usage,
        elapsed_seconds=seconds,
        exit_code=f"{worst}:0" if worst >= 0 else f"0:{-worst}",
        reason=str(books.get("reason", "")),
    )
    return (took,)


def balance(site: Site, account: str | None, allocation: str | None, unit: str) -> tuple[Balance | None, str | None]:
    """What is left of *account*'s *allocation* (the key's prefix in the site's file), and a warning for a torn file.

    A site without such a file, or a file that the user may not see, is no reason to say anything.
    """
    if not (site.allocation_file and account and allocation and re.fullmatch(r"[\w.-]+", account)):
        return None, None
    path = Path(site.allocation_file.format(account=account))
    if not path.is_file():
        return None, None
    try:
        hours = rundir.read_json(path)["billing"][f"{allocation}_hours"]
        return Balance(account=account, unit=unit, alloc=float(hours["alloc"]), used=float(hours["used"])), None
    except (RunError, KeyError, TypeError, ValueError) as error:
        said = error if isinstance(error, RunError) else f"{path} has no {allocation}_hours with alloc and used"
        return None, f"what is left of the allocation is not known: {said}"
