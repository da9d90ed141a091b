"""submitit executors that submit our rendered text: job handles, pickled functions and arrays stay submitit's.

submitit writes an sbatch text of its own, which cannot express masks, containers or a site's environment, and it builds
a plain SlurmExecutor for arrays, which would bypass a subclass. Both are replaced here.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core import core, utils
from submitit.local.local import LocalJob
from submitit.slurm.slurm import SlurmJob

from .. import slurm
from ..errors import SlurmError
from ..job import JobSpec
from ..rundir import RunFolder, write_text


class SlurmScriptExecutor(submitit.SlurmExecutor):
    """Submits the text it was given, with Slurm's own words on refusal, a time-out and a clean environment."""

    def __init__(self, folder: RunFolder, job: JobSpec, script: str, indices: Sequence[int] = ()) -> None:
        super().__init__(folder.path / "submitit")
        self.run_folder, self.job, self.script, self.indices = folder, job, script, tuple(indices)

    @classmethod
    def affinity(cls) -> int:
        """Whether Slurm is here is found out by asking it, not by looking for its programs."""
        return 2

    def submit_script(self) -> core.Job:
        """Submit the script as it is: no pickle."""
        return self._submit_command("")

    def _num_tasks(self) -> int:
        return self.job.nodes * self.job.tasks_per_node

    def _submit_command(self, command: str) -> core.Job:  # the command stands in our script
        write_text(self.run_folder.script, self.script)
        said = slurm.call(["sbatch", str(self.run_folder.script)], env=slurm.clean_environment())
        try:
            job_id = self._get_job_id_from_submission_command(said)
        except utils.FailedSubmissionError as error:
            raise SlurmError(
                f"sbatch said {said.strip()!r}, which has no job id in it; `squeue --me` tells more"
            ) from error
        return SlurmJob(folder=self.folder, job_id=job_id, tasks=list(range(self._num_tasks())))

    def _internal_process_submissions(self, delayed_submissions: list[utils.DelayedSubmission]) -> list[core.Job]:
        """Pickle each function for its task, then submit once: one sbatch for an array of any size."""
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        pickles = [folder / f"{uuid.uuid4().hex}.pkl" for _ in delayed_submissions]
        for delayed, path in zip(delayed_submissions, pickles, strict=True):
            delayed.set_timeout(self.job.minutes, self.max_num_timeout)
            delayed.dump(path)
        first = self._submit_command("")
        ids = [f"{first.job_id}_{index}" for index in self.indices] or [first.job_id]
        jobs: list[core.Job] = [SlurmJob(folder=self.folder, job_id=job_id, tasks=first._tasks) for job_id in ids]
        for job, path in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(path, "submitted_pickle")
        return jobs


class LocalScriptExecutor(submitit.LocalExecutor):
    """Starts our controller on this machine, which runs the rendered text once per rank and keeps the books."""

    def __init__(self, folder: RunFolder, job: JobSpec, script: str, job_id: str, real_devices: int) -> None:
        super().__init__(folder.path / "submitit")
        self.run_folder, self.job, self.script = folder, job, script
        self.job_id, self.real_devices = job_id, real_devices

    def submit_script(self) -> core.Job:
        """Start the script as it is: no pickle."""
        return self._submit_command("")

    def _num_tasks(self) -> int:
        return self.job.tasks_per_node

    def _submit_command(self, command: str) -> LocalJob[Any]:
        write_text(self.run_folder.script, self.script)
        process = subprocess.Popen(
            [sys.executable, "-m", "lumi_moai.launch.controller", str(self.run_folder.path)],
            env=self._environment(),
            cwd=Path(__file__).parent.parent.parent,  # so that a bare checkout finds its own controller
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # outlives the terminal, and its Ctrl-C is not ours
        )
        return LocalJob(folder=self.folder, job_id=self.job_id, process=process, tasks=list(range(self._num_tasks())))

    def _environment(self) -> dict[str, str]:
        """What submitit's controller reads; an empty list of visible devices means that ranks run on the CPU."""
        visible = ",".join(str(device) for device in range(self.job.devices_per_node)) if self.real_devices else ""
        return {
            **os.environ,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_NTASKS": str(self._num_tasks()),
            "SUBMITIT_LOCAL_COMMAND": "",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(self.job.minutes * 60),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(self.job.signal_seconds),
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "LUMI_MOAI_LOCAL_JOB_ID": self.job_id,
            "CUDA_VISIBLE_DEVICES": visible,
        }
