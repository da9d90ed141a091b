"""Start real ranks of a handmade run, as submitit, Slurm or torchrun would, and see what they do."""

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from warm_python import Warm

from lumi_moai.binding import Launch, Topology
from lumi_moai.plan import Wishes

MINE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
FEW_SECONDS = 240
"""No test waits longer; the ranks share the tester's cores with all other tests."""


@dataclass(frozen=True)
class Ended:
    """What one rank left behind."""

    code: int
    out: str
    err: str


def topology(near_cores, numa=None):
    usable = tuple(sorted({core for cores in near_cores for core in cores}))
    return Topology(
        near_cores=tuple(map(tuple, near_cores)), numa=tuple(numa or (0,) * len(near_cores)), usable_cores=usable
    )


def launch(ranks, **words):
    """A launch of *ranks* on one node that binds nothing; *words* say otherwise."""
    given = {
        "world_size": ranks,
        "nodes": 1,
        "devices_per_node": ranks,
        "launcher": "local",
        "binding": "strict",
        "whole_node": False,
        "bind": False,
        "signal": "USR2",
        "topology": topology([MINE] * ranks),
    }
    return Launch(**{**given, **words})


class Run:
    """A run folder, and ways to start its ranks."""

    cold = False
    """Whether ranks start and import torch themselves; else they are forked from a Python that did."""
    imported = ()
    """What that Python has imported besides."""

    def __init__(self, folder, description, wishes=None):
        self.folder = Path(folder)
        (self.folder / "code").mkdir(parents=True, exist_ok=True)
        job = {"launch": description.as_json(), "parallel": (wishes or Wishes()).as_json()}
        (self.folder / "job.json").write_text(json.dumps(job))

    def script(self, text, name="script.py"):
        path = self.folder / "code" / name
        path.write_text(textwrap.dedent(text))
        return name

    def command(self, *words):
        return [sys.executable, "-m", "lumi_moai.runtime", "--run", str(self.folder), "--", *words]

    def start(self, environments, *words, prefix=None, cwd=None):
        """One process per environment, all at once; what *prefix* says of a rank stands before its command."""
        return [
            self._one(
                [*(prefix(rank) if prefix else ()), *self.command(*words)],
                env={"LUMI_MOAI_SAMPLE_SECONDS": "0", **os.environ, **environment},  # the recorder has tests of its own
                cwd=cwd or self.folder,
                cold=self.cold or prefix is not None,
            )
            for rank, environment in enumerate(environments)
        ]

    def _one(self, command, *, env, cwd, cold):
        if not cold:
            return Warm(command[1:], cwd=cwd, env=env, more=self.imported)
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def ranks(self, environments, *words, **how):
        return ended(self.start(environments, *words, **how))

    def certificate(self, label="77-r0"):
        return json.loads((self.folder / "certificate" / f"{label}.json").read_text())


class ColdRun(Run):
    """For tests of the start itself, of memory and of compiled code."""

    cold = True


def ended(processes):
    """Wait for *processes*; none is left behind, whatever happens."""
    try:
        return [
            Ended(process.returncode, out, err)
            for process in processes
            for out, err in [process.communicate(timeout=FEW_SECONDS)]
        ]
    finally:
        for process in processes:
            process.kill()


def submitit(ranks, job="77"):
    """The variables that submitit's local executor gives to each rank."""
    return [
        {
            "SUBMITIT_LOCAL_JOB_ID": job,
            "SUBMITIT_LOCAL_NTASKS": str(ranks),
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_GLOBALID": str(rank),
            "SUBMITIT_LOCAL_LOCALID": str(rank),
            "SUBMITIT_EXECUTOR": "local",
            "LUMI_MOAI_CERTIFICATE_SECONDS": "60",
        }
        for rank in range(ranks)
    ]


def slurm(ranks, job="77", per_node=None, **more):
    """The variables that srun gives to each task."""
    per_node = per_node or ranks
    return [
        {
            "SLURM_JOB_ID": job,
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % per_node),
            "SLURM_NODEID": str(rank // per_node),
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": str(ranks),
            "SLURM_STEP_NUM_NODES": str(ranks // per_node),
            "SLURM_STEP_TASKS_PER_NODE": f"{per_node}(x{ranks // per_node})",
            "SLURM_NTASKS": str(ranks),
            "LUMI_MOAI_CERTIFICATE_SECONDS": "60",
            **more,
        }
        for rank in range(ranks)
    ]


def wait_for(path, seconds=60):
    """Until *path* exists."""
    end = time.monotonic() + seconds
    while not Path(path).exists():
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.05)
