"""Make the run folder, render the script, submit exactly that text, and remember it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .. import rundir, slurm
from ..errors import LumiMoaiError, RequestError, RunError, SlurmTimeout
from ..job import JobSpec, array_indices
from ..render import Script
from ..rundir import Entry, RunFolder
from ..usage import Bill
from . import snapshot
from .prepare import Prepared, estimate, name_of, preview_folder, real_devices, script_of, usage
from .states import forget_queue

_FUNCTION = "submitit.core._submit"
"""What the ranks run when a function was submitted: submitit unpickles it there."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job that Slurm, or this machine, has taken."""

    job_id: str
    folder: RunFolder
    job: JobSpec
    estimate: Bill
    handle: Any
    """submitit's job: of an array, one for each of its runs when functions were submitted."""


def submit(prepared: Prepared, function: Callable[[], Any] | None = None) -> Submitted:
    """Submit *prepared*; with a *function* its ranks run that instead of a script.

    Raises LumiMoaiError when something cannot be; then nothing is left behind, but for a time-out of Slurm, after which
    the job may exist all the same and its folder stays.
    """
    script_of(prepared, preview_folder(prepared))  # whatever cannot be rendered is refused before anything is made
    _check_scheduler(prepared)
    folder = _new_folder(prepared)
    with _undone_on_error(folder):
        job, script = script_of(_aim(prepared, folder, function), folder.path)
        _fill(folder, prepared, job)
        executor, extra = _executor(prepared, folder, job, script)
        handle = _hand_over(executor, job, function)
    first = handle[0] if isinstance(handle, list) else handle
    job_id = first.job_id.split("_")[0]
    bill = estimate(prepared)
    rundir.note_submission(folder, _entry(prepared, job, job_id, folder, bill), extra | _process(handle))
    if prepared.site.scheduler == "slurm":
        forget_queue()
    return Submitted(job_id=job_id, folder=folder, job=job, estimate=bill, handle=handle)


def _check_scheduler(prepared: Prepared) -> None:
    """Refuse on a machine without the site's scheduler before a folder is made.

    Raises RequestError or SlurmError.
    """
    if prepared.site.scheduler == "local":
        if prepared.request.array is not None:
            raise RequestError("site local has no queue and so no --array; submit the script once for each index")
        return
    if shutil.which("sbatch") is None:
        slurm.call(["sbatch", "--version"])  # says the sentence about a missing program


def _new_folder(prepared: Prepared) -> RunFolder:
    """A folder of its own for this run, also when two are submitted in the same second."""
    stem = prepared.runs / f"{name_of(prepared)}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while (path := stem if number == 1 else stem.with_name(f"{stem.name}-{number}")).exists():
        number += 1
    return rundir.make(path)


@contextmanager
def _undone_on_error(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except SlurmTimeout as error:
        raise SlurmTimeout(
            f"{error}\n  The job may have been taken all the same, see `squeue --me`; its run folder is {folder.path}"
        ) from error
    except (LumiMoaiError, KeyboardInterrupt):
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise RunError(f"the run folder {folder.path} cannot be filled: {error.strerror}") from error


def _aim(prepared: Prepared, folder: RunFolder, function: Callable[[], Any] | None) -> Prepared:
    """A function's command is submitit's module with the folder of its pickle."""
    if function is None:
        return prepared
    if prepared.request.launcher == "torchrun":
        raise RequestError(
            "a function cannot be submitted with --launcher torchrun: each rank returns a result of its own"
        )
    command = (_FUNCTION, str(folder.path / "submitit"))
    return replace(prepared, request=replace(prepared.request, command=command, module=True, name=name_of(prepared)))


def _fill(folder: RunFolder, prepared: Prepared, job: JobSpec) -> None:
    if prepared.snapshot is not None:
        snapshot.copy_code(prepared.snapshot, folder)
    if prepared.earlier is not None:
        prepared.earlier.hand_over(folder)
    snapshot.copy_library(folder)
    where = prepared.snapshot.root if prepared.snapshot else prepared.work_folder
    snapshot.write_passport(folder, where, job.container)
    bill, blocked = estimate(prepared), usage(prepared)
    rundir.write_json(
        folder.job_file,
        {
            "schema": rundir.SCHEMA,
            "job": job.as_json(),
            "launch": job.launch.as_json(),
            "parallel": job.wishes.as_json(),
            "resumed_from": os.fspath(prepared.earlier.folder.path) if prepared.earlier else None,
            "estimate": {
                "billing_units": bill.billing_units,
                "unit": bill.unit,
                "hours": bill.hours,
                "decided_by": bill.decided_by,
                "billing_units_per_hour": bill.per_hour,
                "cores": blocked.cores,
                "memory_gib": blocked.memory_gib,
                "devices": blocked.devices,
                "nodes": blocked.nodes,
            },
        },
    )


def _executor(prepared: Prepared, folder: RunFolder, job: JobSpec, script: Script) -> tuple[Any, dict[str, Any]]:
    from .executors import LocalScriptExecutor, SlurmScriptExecutor

    if prepared.site.scheduler == "slurm":
        return SlurmScriptExecutor(folder, job, script.text, array_indices(job.array)), {}
    there = real_devices(prepared.site)
    return LocalScriptExecutor(folder, job, script.text, rundir.next_local_id(), there), {"real_devices": there}


def _hand_over(executor: Any, job: JobSpec, function: Callable[[], Any] | None) -> Any:
    if function is None:
        return executor.submit_script()
    indices = array_indices(job.array)
    return executor.submit_array([function] * len(indices)) if indices else executor.submit(function)


def _process(handle: Any) -> dict[str, Any]:
    """The process of a local run, so that another command can find it."""
    process = getattr(handle, "_process", None)
    return {} if process is None else {"pid": process.pid, "pid_start": rundir.process_start(process.pid)}


def _entry(prepared: Prepared, job: JobSpec, job_id: str, folder: RunFolder, bill: Bill) -> Entry:
    return Entry(
        job_id=job_id,
        name=job.name,
        folder=os.fspath(folder.path),
        site=prepared.site.name,
        scheduler=prepared.site.scheduler,
        submitted=time.time(),
        units_per_hour=bill.per_hour,
        unit=bill.unit,
        tasks=max(1, len(array_indices(job.array))),
    )
