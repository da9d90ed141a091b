"""Races between a run that ends and who looks at it: no line is lost, and no run ends that nobody has seen the end of."""

import os
from pathlib import Path

import pytest
from fake_slurm import install
from test_rundir import entry
from test_states import HEADER, slurm_entry, squeue_says

from lumi_moai import rundir
from lumi_moai.errors import RunError
from lumi_moai.launch.run import Run, follow
from lumi_moai.launch.states import JobState


def started(path, job_id="local-1", **facts):
    """A run folder with everything that following needs."""
    folder = rundir.make(path)
    launch = {"world_size": 1, "devices_per_node": 1, "nodes": 1, "launcher": "local"}
    rundir.write_json(folder.job_file, {"job": {"name": "train"}, "launch": launch})
    rundir.note_submission(folder, entry(job_id, folder=str(path), site="local", scheduler="local"), facts)
    return folder


def ended_after(log, text):
    """A run that writes its last words while somebody asks whether it has ended, which it then has."""

    class Ending(Run):
        @property
        def states(self):
            if not log.exists() or not log.read_text().endswith(text):
                with open(log, "a") as file:
                    file.write(text)
            end = {"state": "COMPLETED", "reason": "", "elapsed_seconds": 1, "billing_units": 0.0}
            return [JobState(job_id=self.job_id, name="train", **end)]

    return Ending


@pytest.mark.parametrize("before", ["", "first\n"], ids=["no log yet", "a log"])
def test_what_is_written_while_the_end_is_looked_up_is_shown(work, before):
    folder = started(work / "run")
    log = folder.logs / "train-local-1-rank0.log"
    if before:
        log.write_text(before)
    run = ended_after(log, "the last words\n")(job_id="local-1", folder=folder)
    assert "".join(follow(run)) == f"{before}the last words\n"


def test_a_task_that_neither_queue_nor_accounting_shows_has_not_ended(work, monkeypatch):
    """Between squeue, which forgets a task at once, and sacct, which learns of its end a second later."""
    rundir.record(slurm_entry("9", tasks=2))
    run = Run(job_id="9_1", folder=rundir.RunFolder(Path("/runs/9")))
    other = squeue_says("9_0|RUNNING|None|6:00|1:00:00|1|standard-g|train")
    install(work, monkeypatch, squeue=other, sacct=squeue_says(HEADER))
    assert [(row.job_id, row.state, row.ended) for row in run.states] == [("9_1", "UNKNOWN", False)]
    with pytest.raises(RunError, match="still UNKNOWN"):
        run.wait(seconds=0)
    failed = squeue_says(HEADER, "9_1|train|FAILED|1:0|standard-g|p|360|node=1|1")
    install(work, monkeypatch, squeue=other, sacct=failed)
    assert run.wait(seconds=5) == "FAILED"


def test_a_controller_that_died_before_it_was_noted_is_dead(work):
    """It was a zombie when its start time was asked for, so there is none; no process at all has none either."""
    folder = started(work / "run", pid=2**22 + 5, pid_start=None)
    assert rundir.process_start(2**22 + 5) is None
    assert rundir.controller_of(folder) is None
    alive = started(work / "alive", "local-2", pid=os.getpid(), pid_start=rundir.process_start(os.getpid()))
    assert rundir.controller_of(alive) == os.getpid()
