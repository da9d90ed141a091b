"""A run that ended before it was done, so that another one, on any flavor, goes on from its checkpoint."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import rundir
from ..errors import RequestError, RunError
from ..rundir import RunFolder
from .snapshot import Snapshot
from .states import states


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What of an earlier run another one takes over."""

    folder: RunFolder
    job: Mapping[str, Any]
    """`job.json`."""

    @property
    def command(self) -> tuple[str, ...]:
        """Its script, in its own snapshot, and the script's arguments."""
        return tuple(self.job["job"]["command"])

    @property
    def work_folder(self) -> Path:
        """Where its script started."""
        return Path(self.job["job"]["work_folder"])

    def snapshot(self) -> Snapshot:
        """Its code, as it was."""
        root = self.folder.code
        files = tuple(path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return Snapshot(root=root, script=Path(self.command[0]).relative_to(root), included=files, tracked=False)

    def given(self) -> dict[str, Any]:
        """The settings that it had from its user and that the result rests on."""
        job, wishes = self.job["job"], self.job["parallel"]
        layout = ",".join(f"{name}={_word(value)}" for name, value in wishes["layout"].items() if value is not None)
        own = {each["name"]: each["value"] for each in job["environment"] if each["reason"] == "asked for"}
        container = (job["container"] or {}).get("name", "none")
        return {
            "parallel": wishes["mode"],
            "container": container,
            "launcher": self.job["launch"]["launcher"].replace("local", "srun"),
            "binding": self.job["launch"]["binding"],
            **({"layout": layout} if layout else {}),
            **({"env": own} if own else {}),
        }

    def hand_over(self, folder: RunFolder) -> None:
        """Let *folder* have its checkpoints: links to the same files where the disk allows.

        Raises RunError when the disk is full.
        """
        source, target = self.folder.path / "checkpoints", folder.path / "checkpoints"
        try:
            target.mkdir(mode=0o700)
            for path in _checkpoints(self.folder):
                shutil.copytree(path, target / path.name, copy_function=_linked)
                os.chmod(target / path.name, 0o700)
            if (source / "printed").is_file():
                shutil.copy2(source / "printed", target / "printed")
        except OSError as error:
            raise RunError(f"the checkpoints cannot be taken over to {target}: {error.strerror or error}") from error


def earlier(word: str) -> Earlier:
    """The run that *word* means, a job id or a run folder, if another one can go on from it.

    Raises RequestError or RunError with the reason why not.
    """
    folder, job_id = rundir.find(word)
    job = folder.job()
    _check_ended(folder, job_id)
    if job["job"]["array"] or job["job"]["module"]:
        what = "an array" if job["job"]["array"] else "a module or a function"
        raise RequestError(f"{word} is {what}; only the run of one script goes on in another")
    if not _checkpoints(folder):
        raise RequestError(
            f"{word} has no checkpoint in {folder.path / 'checkpoints'}; it was too short, or ran with --checkpoint"
            " off or --parallel script"
        )
    return Earlier(folder=folder, job=job)


def _check_ended(folder: RunFolder, job_id: str) -> None:
    active = next((row for row in states([rundir.entry_of(folder)]).rows if not row.ended), None)
    if active is not None:
        raise RequestError(
            f"job {job_id} is still {active.state}, and two jobs would write the same files; cancel it first"
            f" (lumi-moai cancel {job_id})"
        )


def _checkpoints(folder: RunFolder) -> list[Path]:
    found = sorted((folder.path / "checkpoints").glob("step-*"))
    return [path for path in found if re.fullmatch(r"step-\d+", path.name)]


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _word(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
