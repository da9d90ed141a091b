"""The product on real Slurm: submit, array, requeue, cancel, time-out, a crash, out of memory, usage against the estimate.

The sixteen nodes share this machine's few cores, so no rank can sit where it should: the jobs run with --binding warn.
"""

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lumi_moai.samples import parse_line

ROOT = Path(__file__).parents[2]
OPTIONS = ["--account", "project_465000001", "--container", "none", "--binding", "warn"]


@dataclass(frozen=True)
class Door:
    """`lumi-moai` on the cluster, from a folder and a home of its own."""

    cluster: object
    folder: Path

    def run(self, *words, check=True):
        env = {**self.cluster.env, "XDG_STATE_HOME": str(self.folder / "state"), "XDG_CONFIG_HOME": str(self.folder / "config"),
               "PYTHONPATH": str(ROOT)}  # fmt: skip
        program = [sys.executable, "-c", "from lumi_moai.cli import main; main()"]
        return self.cluster.run(*program, *words, cwd=self.folder, env=env, check=check)

    def json(self, *words):
        return json.loads(self.run(*words, "--json").stdout)

    def script(self, text, name="train.py"):
        (self.folder / name).write_text(text)
        return name

    def submit(self, *words):
        return json.loads(self.run("submit", "--json", *OPTIONS, *words).stdout)

    def state(self, job_id):
        return self.json("status", job_id)[0]["state"]

    def until(self, job_id, *states, seconds=60):
        end = time.monotonic() + seconds
        while (state := self.state(job_id)) not in states:
            assert time.monotonic() < end, f"job {job_id} is {state}, not {states}"
            time.sleep(0.5)
        return state

    def log_until(self, job_id, words, seconds=60):
        end = time.monotonic() + seconds
        while words not in (text := self.run("logs", job_id).stdout):
            assert time.monotonic() < end, text
            time.sleep(0.3)
        return text


@pytest.fixture
def door(cluster, tmp_path):
    return Door(cluster, tmp_path)


def test_the_cluster_is_recognised(door):
    assert {row["name"]: row["partition"] for row in door.json("flavors")}["8xLarge"] == "standard-g"


def test_sixteen_ranks_train_as_one_and_are_billed(door):
    """The issue's own proof: the loss of 16 ranks over two nodes is the one-rank loss, with usage and bill from sacct."""
    example = str(ROOT / "examples/train_gpt.py")
    arguments = ["--max-steps", "6", "--log-interval", "2", "--width", "32", "--save-dir"]
    many = door.submit("--flavor", "2xLarge", example, *arguments, "many")
    assert (many["devices"], many["nodes"], many["partition"]) == (16, 2, "standard-g")
    door.run("wait", many["job_id"])
    one = door.submit("--flavor", "Small", example, *arguments, "one")
    # Weights in parts within each node, copies between the nodes.
    spread = door.submit("--flavor", "2xLarge", "--layout", "hsdp", example, *arguments, "spread")
    for run in (one, spread):
        door.run("wait", run["job_id"])
    logs = [door.run("logs", run["job_id"]).stdout for run in (many, spread, one)]
    losses = [[float(x) for x in re.findall(r"Loss: (\S+)", log)] for log in logs]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)
    plan = json.loads((Path(spread["folder"]) / "plan.json").read_text())["plan"]
    assert (plan["dp_replicate"], plan["dp_shard"]) == (2, 8)

    report = door.json("collect", many["job_id"])
    assert report["outcome"] == "completed"
    assert (report["records"], report["first_step"], report["last_step"]) == (3, 2, 6)
    assert report["loss_last"] == losses[0][-1]
    assert report["throughput"]["unit"] == "tokens_per_second"
    assert report["world_size"] == 16
    usage = report["usage"]
    assert (usage["devices"], usage["nodes"], usage["cores"], usage["memory_gib"]) == (16, 2, 112, 960)
    assert report["billing_units"] == pytest.approx(8 * usage["hours"])  # 2 nodes x 4 GPU-hours
    assert report["planned"]["billing_units"] == pytest.approx(many["billing_units"])
    assert (door.folder / "many/model.pt").stat().st_size == pytest.approx(
        (door.folder / "one/model.pt").stat().st_size, rel=0.01
    )


def test_the_certificate_says_what_it_sees(door):
    run = door.submit("--flavor", "xLarge", door.script("print('ran')"))
    door.run("wait", run["job_id"])
    text = door.run("logs", run["job_id"]).stdout
    assert "its device 0 sits next to 49-55" in text
    assert "ran" in text
    (certificate,) = Path(run["folder"], "certificate").glob("*.json")
    verdict = json.loads(certificate.read_text())
    assert verdict["verdict"] == "wrong"
    assert [row["device"] for row in verdict["rows"]] == list(range(8))


def test_a_wrong_binding_stops_the_job_before_the_script(door):
    run = door.submit("--flavor", "xLarge", "--binding", "strict", door.script("print('ran')"))
    assert door.run("wait", run["job_id"], check=False).returncode == 1
    assert "ran" not in door.run("logs", run["job_id"]).stdout.split("\n")
    assert door.json("collect", run["job_id"])["outcome"] == "failed"


def test_torchrun_on_two_nodes(door):
    name = door.script("import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])")
    run = door.submit("--flavor", "1.5xLarge", "--launcher", "torchrun", name)
    door.run("wait", run["job_id"])
    assert "rank 0 of 12" in door.run("logs", run["job_id"]).stdout
    assert "rank 11 of 12" in door.run("logs", run["job_id"], "--rank", "11").stdout


def test_an_array_is_one_submission_and_ten_runs(door):
    name = door.script("import os; print('index', os.environ['LUMI_MOAI_ARRAY_INDEX'])")
    run = door.submit("--flavor", "Small", "--array", "0-9", name)
    door.run("wait", run["job_id"])
    for index in range(10):
        assert f"index {index}\n" in door.run("logs", f"{run['job_id']}_{index}").stdout
    assert door.state(run["job_id"]) == "COMPLETED"


def test_a_requeued_job_goes_on_in_the_same_log(door):
    name = door.script(
        "import os, time\nprint('start', os.environ.get('SLURM_RESTART_COUNT', '0'), flush=True)\n"
        "time.sleep(0 if os.environ.get('SLURM_RESTART_COUNT') else 300)"
    )
    run = door.submit("--flavor", "Small", name)
    door.log_until(run["job_id"], "start 0")
    with ThreadPoolExecutor() as pool:
        followed = pool.submit(door.run, "logs", run["job_id"], "--follow")
        door.cluster.run("scontrol", "requeue", run["job_id"])
        text = door.log_until(run["job_id"], "start 1", seconds=120)
        assert text.index("start 0") < text.index("start 1")
        assert door.until(run["job_id"], "COMPLETED") == "COMPLETED"
        assert followed.result(timeout=60).stdout == door.run("logs", run["job_id"]).stdout
    assert len(list(Path(run["folder"], "certificate").glob("*.json"))) == 2
    report = door.json("collect", run["job_id"])
    assert report["outcome"] == "completed"
    assert report["starts"] == 2


def test_each_node_is_recorded_in_a_file_of_its_own_and_every_start_in_it(door):
    name = door.script(
        "import os, time\n"
        "again = int(os.environ.get('SLURM_RESTART_COUNT', '0'))\n"
        "for n in range(4 if again else 300):\n"
        "    print(f'[Step {4 * again + n + 1}/8] | Loss: {9 - n} | Duration: 1.0', flush=True)\n"
        "    time.sleep(1)"
    )
    run = door.submit("--flavor", "1.5xLarge", name)
    door.log_until(run["job_id"], "[Step 4/8]")
    door.cluster.run("scontrol", "requeue", run["job_id"])
    assert door.until(run["job_id"], "COMPLETED", seconds=120) == "COMPLETED"
    files = sorted(Path(run["folder"], "samples").iterdir())
    assert len(files) == 2
    for path in files:
        lines = [parse_line(line) for line in path.read_text().splitlines()]
        assert {line.start[:2] for line in lines if line} == {"r0", "r1"}
        assert {line.node for line in lines if line} == {path.stem.partition("-")[2]}
        assert all(line.ranks_mib > 6 * 5 for line in lines if line), "the resident memory of six ranks"
        assert {line.devices for line in lines if line} == {()}, "the lab's devices are files, nobody tells of them"
    first = [line for line in map(parse_line, files[0].read_text().splitlines()) if line]
    assert first[-1].log_bytes > 100
    log = door.run("logs", run["job_id"]).stdout
    assert log.count("no values of the devices of") == 2, "once for each start of the first node"
    door.run("report", run["job_id"], "-o", "r.html")
    text = (door.folder / "r.html").read_text()
    assert "the run was looked at, but nobody told of its devices" in text
    assert "loss-clock-chart" in text
    assert "starts-clock-chart" in text


def test_cancel(door):
    run = door.submit("--flavor", "Small", door.script("import time; print('up', flush=True); time.sleep(300)"))
    door.log_until(run["job_id"], "up")
    door.run("cancel", run["job_id"])
    assert door.until(run["job_id"], "CANCELLED", "COMPLETED", "FAILED") == "CANCELLED"
    assert door.json("collect", run["job_id"])["outcome"] == "cancelled"


def test_a_time_out_is_announced_and_named(door):
    # Two minutes, because Slurm may send the signal a minute early: ahead of a rank that has yet to listen for it.
    run = door.submit(
        "--flavor", "Small", "--time", "2", door.script("import time\nfor _ in range(3000): time.sleep(0.1)")
    )
    assert door.until(run["job_id"], "TIMEOUT", seconds=260) == "TIMEOUT"
    assert "time limit" in door.run("logs", run["job_id"]).stdout
    assert door.json("collect", run["job_id"])["outcome"] == "timeout"


def test_a_rank_that_crashes_ends_the_job_within_seconds(door):
    name = door.script("import os, time\nif os.environ['RANK'] == '5': raise ValueError('rank five')\ntime.sleep(300)")
    started = time.monotonic()
    run = door.submit("--flavor", "xLarge", name)
    assert door.run("wait", run["job_id"], check=False).returncode == 1
    assert time.monotonic() - started < 90
    report = door.json("collect", run["job_id"])
    assert report["outcome"] == "failed"
    assert "ValueError: rank five" in json.dumps(report["evidence"])


def test_out_of_memory_is_named(door):
    """Slurm kills the rank that takes more than the flavor's host memory, which a site file of the user's own lowers here."""
    sites = door.folder / "config/lumi-moai/sites"
    sites.mkdir(parents=True)
    lumi = (ROOT / "configs/sites/lumi.yaml").read_text()
    (sites / "lumi.yaml").write_text(lumi.replace("memory_gib_per_device: 60", "memory_gib_per_device: 1"))
    name = door.script(
        "import time\nx = bytearray(1_600_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1\ntime.sleep(60)"
    )
    run = door.submit("--flavor", "Small", name)
    assert door.run("wait", run["job_id"], check=False).returncode == 1
    report = door.json("collect", run["job_id"])
    assert report["outcome"] == "out_of_memory", report


def test_a_node_that_fails_is_named(door):
    run = door.submit("--flavor", "Small", "--sbatch", "no-requeue", door.script("import time; time.sleep(300)"))
    door.until(run["job_id"], "RUNNING")
    node = door.cluster.run("squeue", "-h", "-j", run["job_id"], "-o", "%N").stdout.strip()
    door.cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=tested")
    try:
        assert door.until(run["job_id"], "NODE_FAIL", seconds=90) == "NODE_FAIL"
    finally:
        door.cluster.run(
            "scontrol", "update", f"NodeName={node}", "State=RESUME", check=False
        )  # it may be back by itself
    assert door.json("collect", run["job_id"])["outcome"] == "node_failure"


def test_a_thousand_runs_are_one_sbatch(door):
    name = door.script("print(1)")
    run = door.submit("--flavor", "Small", "--array", "0-999%1", "--sbatch", "hold", name)
    rows = door.json("status", run["job_id"])
    door.run("cancel", run["job_id"])
    assert len(rows) == 1000
    assert "scontrol release" in rows[0]["advice"]


def test_refusals_are_slurms_own_words_and_leave_nothing(door):
    name = door.script("print(1)")
    for words, said in [
        (["--account", "project_462000009"], "Invalid account"),
        (["--sbatch", "constraint=nope"], "Invalid feature"),
    ]:
        done = door.run("submit", *OPTIONS, "--flavor", "Small", *words, name, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) <= 2
        assert not list((door.folder / "lumi-moai-runs").glob("*"))


def test_strange_folders_and_arguments_arrive(cluster, tmp_path):
    folder = tmp_path / "a b 'c' \"d\" $(touch pwned) 100%j é"
    folder.mkdir()
    door = Door(cluster, folder)
    name = door.script("import sys; print(sys.argv[1:])", "my $(touch pwned) script.py")
    arguments = ["a b", "$(touch pwned)", "`touch pwned`", "'", '"', "\\"]
    run = door.submit("--flavor", "Small", "--env", "X=$(touch pwned)", name, *arguments)
    door.run("wait", run["job_id"])
    assert str(arguments) in door.run("logs", run["job_id"]).stdout
    assert not list(tmp_path.rglob("pwned"))


def test_functions_return_their_results(door):
    door.script(
        "import lumi_moai\n"
        "options = dict(flavor='Medium', account='project_465000001', container='none', binding='warn')\n"
        "print(lumi_moai.submit(max, 3, 7, name='largest', **options).result())\n"
        "print(lumi_moai.submit(max, 3, 7, name='largest', array='0-2', **options).result())\n",
        "api.py",
    )
    env = {**door.cluster.env, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(door.folder / "state")}
    done = door.cluster.run(sys.executable, "api.py", cwd=door.folder, env=env)
    assert done.stdout.splitlines() == ["7", "[7, 7, 7]"]


def test_smi_of_a_running_job(door):
    """`rocm-smi` stands in for the hardware, which this machine has not; srun, the step and the ranks are real."""
    run = door.submit("--flavor", "2xLarge", door.script("import time; print('up', flush=True); time.sleep(100)"))
    door.log_until(run["job_id"], "up")
    said = door.run("smi")
    assert re.search(r"2xLarge.1024GB +\| +- +\|", said.stdout)
    assert len(said.stderr.splitlines()) == 1
    recorded = ROOT / "tests/recorded/monitor"
    env = {
        **door.cluster.env,
        "PATH": f"{recorded}:{door.cluster.env['PATH']}",
        "RECORDED": str(recorded / "rocm-smi-5.6-mi250x.json"),
    }
    said = Door(type(door.cluster)(door.cluster.folder, env), door.folder).run("smi")
    assert "1048320 MiB" in said.stdout  # 16 x 65520
    assert "928248 MiB" in said.stdout
    door.run("cancel", run["job_id"])


def test_usage_against_the_estimate(door):
    """A part of a node: what sacct says was blocked costs what the estimate said it would, for the time that it ran."""
    run = door.submit("--flavor", "Medium", door.script("import time; time.sleep(5)"))
    door.run("wait", run["job_id"])
    report = door.json("collect", run["job_id"])
    usage = report["usage"]
    assert (usage["devices"], usage["cores"], usage["memory_gib"]) == (2, 14, 120)
    assert usage["hours"] * 3600 >= 5
    assert report["billing_units"] == pytest.approx(run["billing_units"] / run["hours"] * usage["hours"])


def test_the_accounting_down_is_a_warning(door):
    """slurmdbd stopped for a moment; the job is still told from squeue, and nothing is lost."""
    run = door.submit("--flavor", "Small", door.script("print('ran')"))
    door.run("wait", run["job_id"])
    pid = next(iter((door.cluster.folder / "run").glob("*dbd*.pid"))).read_text().strip()
    door.cluster.run("kill", "-STOP", pid)
    try:
        env = {**door.cluster.env, "LUMI_MOAI_SLURM_SECONDS": "3"}
        done = Door(type(door.cluster)(door.cluster.folder, env), door.folder).run(
            "collect", run["job_id"], check=False
        )
    finally:
        door.cluster.run("kill", "-CONT", pid)
    assert done.returncode == 0, done.stderr
    assert "sacct" in done.stderr
    assert "Traceback" not in done.stderr
