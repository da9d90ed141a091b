"""`python -m lumi_moai.launch.controller RUN`: runs the ranks of a local job and keeps the books that Slurm would keep.

submitit's controller starts the ranks and passes signals on; this one adds logs in the run folder, `kill-on-bad-exit`,
and an `accounting.json` that outlives it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from submitit.local.local import Controller

from ..rundir import RunFolder, write_json

_POLL_SECONDS = 0.05
_MOMENT_SECONDS = 1.0
_GRACE_SECONDS = 5.0
"""How long the other ranks may outlive one that failed; Slurm's KillWait is longer, but nobody else waits here."""


class LocalController(Controller):
    """One local job: all ranks of it, until the last has ended."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder.path / "submitit")
        self.run_folder, self.pid = folder, os.environ["LUMI_MOAI_LOCAL_JOB_ID"]
        self.ahead = signal.Signals[f"SIG{folder.job()['launch']['signal']}"]
        self.started = time.time()
        self.cancelled = False
        self.timed_out = False
        signal.signal(signal.SIGTERM, self._cancel)
        signal.signal(signal.SIGINT, self._cancel)

    def start_tasks(self) -> None:
        """Start one process per rank, each with its own log for both streams."""
        name = self.run_folder.job()["job"]["name"]
        for rank in range(self.ntasks):
            env = {
                **os.environ,
                "SUBMITIT_LOCAL_LOCALID": str(rank),
                "SUBMITIT_LOCAL_GLOBALID": str(rank),
                "SUBMITIT_LOCAL_JOB_ID": self.pid,
            }
            with open(self.run_folder.logs / f"{name}-{self.pid}-rank{rank}.log", "ab") as log:
                self.tasks.append(
                    subprocess.Popen(
                        ["bash", str(self.run_folder.script)],
                        env=env,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # a rank and its loader workers end together
                    )
                )

    def wait(self, freq: int = 24) -> list[int | None]:
        """Wait until all ranks have ended; the first failure, the time limit or a cancellation ends the others."""
        deadline, warned = self.started + self.timeout_s, False
        while any(task.poll() is None for task in self.tasks):
            now = time.time()
            if not warned and now > deadline - self.signal_delay_s:
                self._forward_signal(self.ahead)
                warned = True
            self.timed_out = self.timed_out or now > deadline
            if self.timed_out or self.cancelled or self._has_failed():
                self._end_ranks()
            time.sleep(_POLL_SECONDS)
        return [task.returncode for task in self.tasks]

    def _has_failed(self) -> bool:
        """Whether a rank has failed; the others then get a moment, for rank 0 tells best what all did wrong."""
        if not any(task.poll() for task in self.tasks):
            return False
        self._wait_for_ranks(_MOMENT_SECONDS)
        return True

    def _wait_for_ranks(self, seconds: float) -> None:
        give_up = time.time() + seconds
        while time.time() < give_up and any(task.poll() is None for task in self.tasks):
            time.sleep(_POLL_SECONDS)

    def _end_ranks(self) -> None:
        """Ask all ranks and their children to end, wait, then make them."""
        self._signal_groups(signal.SIGTERM)
        self._wait_for_ranks(_GRACE_SECONDS)
        self._signal_groups(signal.SIGKILL)
        for task in self.tasks:
            task.wait()

    def _signal_groups(self, number: signal.Signals) -> None:
        for task in self.tasks:
            try:
                os.killpg(task.pid, number)
            except ProcessLookupError:
                continue  # it ended in the meantime

    def _forward_signal(self, signum: signal.Signals, *_: object) -> None:
        self._signal_groups(signum)

    def _cancel(self, _number: int, _frame: FrameType | None) -> None:
        self.cancelled = True

    def account(self, exit_codes: list[int | None]) -> None:
        """Write what sacct would say. Times are seconds since 1970."""
        failed = any(exit_codes)
        states = [(self.cancelled, "CANCELLED"), (self.timed_out, "TIMEOUT"), (failed, "FAILED")]
        ended = time.time()
        books = {
            "state": next((state for holds, state in states if holds), "COMPLETED"),
            "exit_codes": exit_codes,
            "elapsed_seconds": int(ended - self.started),
            "start": self.started,
            "end": ended,
        }
        write_json(self.run_folder.accounting, books)


def main() -> None:
    """Run the job whose folder is the only argument."""
    controller = LocalController(RunFolder(Path(sys.argv[1])))
    controller.start_tasks()
    controller.account(controller.wait())


if __name__ == "__main__":
    main()
