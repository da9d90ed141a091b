"""Asking the job script to queue the job again, by a file in which it finds the number of this start."""

import os
from pathlib import Path

from .meeting import write_json


def can_ask() -> bool:
    """Whether there is a job script that queues its job again."""
    return os.environ.get("LUMI_MOAI_REQUEUE") == "1"


def ask(run: Path) -> None:
    """Let the job of the folder *run* be queued again when its ranks have ended.

    The caller sees to it that the next start gets further than this one, or a job that gets nowhere is queued for ever.
    Raises RunError when the file cannot be written.
    """
    folder = run / "checkpoints"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    job, restart = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")
    write_json(folder / f"requeue-{job}", int(restart))  # by several ranks at once, maybe
