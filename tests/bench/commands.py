"""The commands: how fast the door opens, and what a thousand jobs and a log of 1 GB cost."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PYTHON = sys.executable
LUMI_MOAI = str(Path(PYTHON).parent / "lumi-moai")
JOBS = 1000
GIGABYTES = 1.0


def seconds(words, env, repeats=7):
    """The median wall time of *words* over some runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def world(folder):
    """An environment whose home is *folder* and whose Slurm is four small scripts that count their calls.

    They stand in because a bench needs a thousand jobs that cost nothing; tests/lab has the real ones.
    """
    tools = folder / "tools"
    tools.mkdir()
    queue = folder / "queue"
    queue.write_text("".join(f"{n}|RUNNING|None|1:00:00|2:00:00|1|standard-g|train\n" for n in range(JOBS)))
    bodies = {
        "squeue": f"cat '{queue}'",
        "sacct": "exit 1",
        "sbatch": "echo Submitted batch job 7",
        "scontrol": "exit 1",
    }
    for name, body in bodies.items():
        (tools / name).write_text(f"#!/bin/sh\necho {name} >> '{folder}/calls'\n{body}\n")
        (tools / name).chmod(0o755)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "LUMI_MOAI_"))
    }
    return {**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config"),
            "PATH": f"{tools}:{os.environ['PATH']}"}  # fmt: skip


def calls(folder, name):
    path = folder / "calls"
    return path.read_text().split().count(name) if path.exists() else 0


def door(folder, env):
    base = seconds([PYTHON, "-c", "import click"], env)
    (folder / "train.py").write_text("print(1)\n")
    script = str(folder / "train.py")
    render = [LUMI_MOAI, "render", "--site", "lumi", "--flavor", "8xLarge", "--account", "project_465000001", script]
    yield "lumi-moai --help / import click", seconds([LUMI_MOAI, "--help"], env) / base, 2.5
    yield "lumi-moai render / import click", seconds(render, env) / base, 6.0


def status(folder, env):
    ledger = folder / "state" / "lumi-moai" / "runs.jsonl"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    line = {
        "name": "train",
        "site": "lumi",
        "scheduler": "slurm",
        "submitted": 1.0,
        "units_per_hour": 4.0,
        "unit": "GPU-hours",
    }
    ledger.write_text(
        "".join(json.dumps({"job_id": str(n), "folder": f"/runs/{n}", **line}) + "\n" for n in range(JOBS))
    )
    before, asked = resource.getrusage(resource.RUSAGE_CHILDREN), calls(folder, "squeue")
    subprocess.run([LUMI_MOAI, "status"], env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    yield f"CPU seconds of `status` for {JOBS} jobs", spent, 0.5
    yield f"squeue calls of `status` for {JOBS} jobs", calls(folder, "squeue") - asked, 1
    ledger.unlink()


def array(folder, env):
    words = [LUMI_MOAI, "submit", "--site", "lumi", "--flavor", "Small", "--account", "project_465000001",
             "--array", f"0-{JOBS - 1}", "--runs", str(folder / "runs"), str(folder / "train.py")]  # fmt: skip
    asked = calls(folder, "sbatch")
    subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)
    yield f"sbatch calls for an array of {JOBS}", calls(folder, "sbatch") - asked, 1


STEP = "| INFO     | __main__:main:136 - [Step {}/99999999] | Loss: {:.7f} | Duration: {:.2f} | Throughput: {:.2f} tokens/sec\n"
OTHER = (ROOT / "tests/recorded/logs/moai/llama2_32gpu.log").read_text().splitlines(keepends=True)[:-6]


def write_log(path, gigabytes):
    """Step lines, with other real lines in between, one in ten."""
    step = 0
    with open(path, "w") as file:
        while file.tell() < gigabytes * 1e9:
            for _ in range(20_000):
                step += 1
                file.write(STEP.format(step, 2 / step**0.1, 1 + step % 89 / 89, 300_000 + step * 7919 % 9973))
                if step % 10 == 0:
                    file.write(OTHER[step // 10 % len(OTHER)])


def piped(words, env):
    """Seconds that *words* take, the second time. Into a pipe: grep stops at its first hit when it sees /dev/null."""
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - started


def collect(folder, env):
    """Peak memory of `collect` on a log of 1 GB, and its speed against `grep -c` on the same file."""
    log = folder / "train-1-rank0.log"
    write_log(log, GIGABYTES)
    grep = piped(["grep", "-c", "Throughput", str(log)], env)
    words = [PYTHON, "-c", PEAK, LUMI_MOAI, "collect", "--json", str(log)]
    started = time.perf_counter()
    done = subprocess.run(words, env=env, check=True, capture_output=True, text=True)
    took = time.perf_counter() - started
    yield "MB of memory of `collect` on a 1 GB log", int(done.stderr.split()[-1]) / 1000, 100
    yield "speed of `collect` / speed of `grep -c` on a 1 GB log", grep / took, ("at least", 0.25)
    log.unlink()


LIVE = """
import time
for step in range(300):
    print(f"[Step {step}/300] | Loss: {9 / (step + 1)} | Duration: 0.1 | Throughput: 1000.0 tokens/sec", flush=True)
    time.sleep(0.1)
"""
FOLLOW = """
import json, os, sys, time
from lumi_moai.launch.run import find_run, follow
began = spent = None
for piece in follow(find_run(json.loads(sys.argv[1])["job_id"])):
    now, used = time.monotonic(), sum(os.times()[:4])
    if began is None:
        began, spent = now, used
    elif now - began > 20:
        break
print((used - spent) / (now - began))
"""


def following(folder, env):
    """The part of a core that looking at a log costs while ten steps a second are written, Slurm's answers included."""
    (folder / "live.py").write_text(LIVE)
    words = [LUMI_MOAI, "submit", "--site", "local", "--flavor", "Small", "--runs", str(folder / "runs"), "--json"]
    started = subprocess.run([*words, str(folder / "live.py")], env=env, check=True, capture_output=True, text=True)
    done = subprocess.run(
        [PYTHON, "-c", FOLLOW, started.stdout], env=env, check=True, capture_output=True, text=True, cwd=ROOT
    )
    yield "part of a core that following a live log takes", float(done.stdout), 0.01


PEAK = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(done.returncode)"
)


def figures(folder):
    env = world(folder)
    for part in (door, status, array, collect, following):
        for what, value, bound in part(folder, env):
            yield what, value, bound if isinstance(bound, tuple) else ("at most", bound)
