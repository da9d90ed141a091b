"""The labs are what they say: 16 idle nodes that run and account for jobs, and a node that binds as LUMI-G does."""

import json
import shlex
import sys
import time
from pathlib import Path

PYTHON = shlex.quote(sys.executable)

ACCOUNT = "--account=project_465000001"
SHAPE = "--nodes=2 --ntasks-per-node=8 --cpus-per-task=7 --gpus-per-node=8 --mem=480G --time=5".split()
MASKS = "fe000000000000,fe00000000000000,fe0000,fe000000,fe,fe00,fe00000000,fe0000000000"


# ---- the cluster --------------------------------------------------------------------------------------------------


def finished(cluster, job: str, seconds: float = 60) -> dict[str, list[str]]:
    """sacct's State, AllocTRES, ElapsedRaw and MaxRSS by step, as soon as the job has ended."""
    words = "sacct", "-nPj", job, "--format=JobID,State,AllocTRES,ElapsedRaw,MaxRSS"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rows = [line.split("|") for line in cluster.run(*words).stdout.splitlines()]
        if rows and not any(row[1] in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED") for row in rows):
            return {row[0].removeprefix(job): row[1:] for row in rows}
        time.sleep(0.3)
    raise TimeoutError(f"Job {job} has not ended after {seconds} s: {rows}")


def submit(cluster, folder: Path, body: str, *options: str) -> str:
    words = ["sbatch", "--parsable", ACCOUNT, f"--output={folder}/out", *options, "--wrap", body]
    return cluster.run(*words, cwd=folder).stdout.strip()


def test_sixteen_idle_nodes(cluster):
    for partition in ("standard-g", "small-g", "dev-g"):
        said = cluster.run("sinfo", "-hp", partition, "-o", "%D %G").stdout.split()
        assert said == ["16", "gpu:mi250:8"]


def test_job_on_two_nodes_is_accounted_for(cluster, tmp_path):
    job = submit(cluster, tmp_path, "srun bash -c 'echo $SLURMD_NODENAME; sleep 2'", "-pstandard-g", *SHAPE)
    record = finished(cluster, job)
    assert sorted(set((tmp_path / "out").read_text().split())) == ["nid005124", "nid005125"]
    state, resources, elapsed, _ = record[""]
    assert (state, int(elapsed) >= 2) == ("COMPLETED", True)
    assert {"gres/gpu=16", "node=2", "mem=960G"} <= set(resources.split(","))
    assert record[".0"][3].endswith("K")


def test_too_much_memory_is_out_of_memory(cluster, tmp_path):
    grab = f"{PYTHON} -c 'import time; x = bytearray(600_000_000); time.sleep(10)'"
    record = finished(
        cluster, submit(cluster, tmp_path, f"srun {grab}", "-psmall-g", "--mem=200M", "--gpus-per-node=1")
    )
    # srun ends with 1, so the job itself has FAILED: only the step knows why. Without a memory cgroup, Slurm's own
    # polling ends the step, as CANCELLED.
    assert record[""][0] == "FAILED"
    assert record[".0"][0].split()[0] in ("OUT_OF_MEMORY", "CANCELLED")


def test_requeued_job_starts_again_soon(cluster, tmp_path):
    body = 'echo ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 100'
    job = submit(cluster, tmp_path, body, "-psmall-g", "--gpus-per-node=1", "--requeue", "--open-mode=append")
    out = tmp_path / "out"
    while not (out.exists() and out.read_text()):
        time.sleep(0.1)
    cluster.run("scontrol", "requeue", job)
    finished(cluster, job, seconds=30)
    assert out.read_text().split()[-1] == "1"


# ---- the node -----------------------------------------------------------------------------------------------------

NODE_VISIBLE = [Path(__file__).parent, sys.prefix]
NODE_SCRIPT = f"""
cat >ask.py <<'P'
import json, os
def cores():
    return sorted(os.sched_getaffinity(0))
def widen(to):
    try:
        os.sched_setaffinity(0, to)
    except OSError as error:
        return error.errno
    return cores()
given = cores()
said = dict(given=given, every=widen(range(64)), withheld=widen([0]), devices=os.environ.get("ROCR_VISIBLE_DEVICES"))
said["step_devices"] = os.environ.get("SLURM_STEP_GPUS")
json.dump(said, open(f"{{os.environ['SLURM_JOB_NAME']}}.{{os.environ['SLURM_PROCID']}}.json", "w"))
P
ask="{PYTHON} ask.py"
small="-psmall-g --nodes=1 --ntasks-per-node=2 --cpus-per-task=7 --gpus-per-node=2"
sbatch -Jfirst $small --wrap "srun --cpus-per-task=7 $ask; sleep 12"
sbatch -Jsecond $small --wrap "srun --cpus-per-task=7 $ask"
sbatch -Jwhole -pstandard-g --ntasks-per-node=8 --cpus-per-task=7 --gpus-per-node=8 \\
  --wrap "srun --cpus-per-task=7 --cpu-bind=mask_cpu:{MASKS} $ask"
while squeue -h | grep -q .; do sleep 0.3; done
"""


def said(node, name: str, tasks: int) -> list[dict]:
    return [json.loads((node.out / f"{name}.{task}.json").read_text()) for task in range(tasks)]


def test_whole_node_takes_the_masks(node):
    tasks = said(node, "whole", 8)
    first = [49, 57, 17, 25, 1, 9, 33, 41]
    assert [task["given"] for task in tasks] == [list(range(core, core + 7)) for core in first]
    assert {task["devices"] for task in tasks} == {"0,1,2,3,4,5,6,7"}


def test_shared_node_fences_jobs_off(node):
    """A task may widen its cores to those of its step, never to another job's or a withheld one; devices likewise."""
    first, second = (said(node, name, 2) for name in ("first", "second"))
    steps = [sorted(a["given"] + b["given"]) for a, b in (first, second)]
    assert [len(step) for step in steps] == [14, 14]
    assert not set(steps[0]) & set(steps[1])
    assert [task["every"] for task in first + second] == [steps[0]] * 2 + [steps[1]] * 2
    assert {task["withheld"] for task in first + second} == {22}
    assert {task["devices"] for task in first + second} == {"0,1"}
    assert (first[0]["step_devices"], second[0]["step_devices"]) == ("0,1", "2,3")
