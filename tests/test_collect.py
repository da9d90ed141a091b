"""`lumi-moai collect` on run folders, jobs and files, with a pretend sacct and squeue that answer what a test says."""

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from lumi_moai import gather, rundir
from lumi_moai.cli import main
from lumi_moai.rundir import Entry, RunFolder

HEADER = "JobID|JobName|State|ExitCode|Partition|Account|ElapsedRaw|AllocTRES|NNodes|MaxRSS|Start|End|Reason"
DONE = "{id}|train|{state}|0:0|standard-g|p|1800|billing=448,cpu=224,gres/gpu=16,mem=960G,node=2|2||2026-01-01T00:00:00||None"
STEPS = "".join(
    f"[Step {n}/9] | Loss: {10 / n:.3f} | Duration: {9.0 if n == 1 else 1.0:.3f} | Throughput: {n * 100:.2f} tokens/sec\n"
    for n in range(1, 10)
)


@pytest.fixture(autouse=True)
def no_lag(monkeypatch):
    monkeypatch.setattr("lumi_moai.gather.accounts.LAG_SECONDS", 0.0)
    monkeypatch.setattr("lumi_moai.gather.accounts._UNKNOWN_SECONDS", 0.0)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Say what `sacct` and `squeue` answer; a number is the exit code with which they fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def say(sacct, squeue=""):
        for name, answer in (("sacct", sacct), ("squeue", squeue)):
            program = folder / name
            text = f"echo 'sacct: error: slurmdbd: Connection refused' >&2; exit {answer}" if isinstance(answer, int) else (
                f"cat <<'END'\n{answer}\nEND"
            )  # fmt: skip
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)

    say(HEADER)
    return say


def make_run(path, job_id="17", scheduler="slurm", tasks=1):
    folder = rundir.make(path)
    site = "lumi" if scheduler == "slurm" else "local"
    entry = Entry(
        job_id=job_id, name="train", folder=str(path), site=site, scheduler=scheduler, submitted=time.time(),
        units_per_hour=8.0, unit="GPU-hours", tasks=tasks,
    )  # fmt: skip
    rundir.write_json(
        folder.job_file,
        {
            "job": {"name": "train", "partition": "local"},
            "launch": {"world_size": 16},
            "estimate": {
                "billing_units": 8.0, "unit": "GPU-hours", "hours": 1.0, "nodes": 2, "devices": 16, "cores": 112,
                "memory_gib": 960.0,
            },
        },
    )  # fmt: skip
    rundir.note_submission(folder, entry, {})
    return folder


def collect(*words):
    done = CliRunner().invoke(main, ["collect", *map(str, words)])
    assert done.exit_code in (0, 1), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def report_of(*words):
    done = collect(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("by", ["job", "folder"])
def test_a_run_that_completed(work, slurm, by):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='COMPLETED')}\n17.0|python|COMPLETED|0:0||p|1700|cpu=224|2|3G|||")
    folder = make_run(work / "run")
    (folder.logs / "train-17-rank0.log").write_text(STEPS)
    (folder.logs / "train-17.log").write_text("lumi-moai: certificate right\n")
    rundir.write_json(
        folder.certificates / "17-r0.json", {"verdict": "right", "faults": [], "remarks": [], "rows": [{}] * 16}
    )
    values, _ = report_of("17" if by == "job" else folder.path)
    assert values["outcome"] == "completed"
    assert (values["records"], values["first_step"], values["last_step"], values["loss_last"]) == (9, 1, 9, 1.111)
    assert values["throughput"] == {
        "median": 550.0, "p10": 270.0, "p90": 830.0, "unit": "tokens_per_second", "scope": "total",
    }  # fmt: skip
    assert (values["world_size"], values["first_seconds"], values["step_seconds"]) == (16, 9.0, 1.0)
    assert values["usage"] == {
        "partition": "standard-g", "nodes": 2, "devices": 16, "cores": 112, "memory_gib": 960.0, "hours": 0.5,
        "max_rss_gib": 3.0,
    }  # fmt: skip
    assert (values["billing_units"], values["unit"], values["planned"]["billing_units"]) == (4.0, "GPU-hours", 8.0)
    assert values["certificate"] == {"verdict": "right", "ranks": 16, "faults": [], "remarks": []}


def test_the_rank_that_crashed_first_is_named(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='FAILED')}")
    folder = make_run(work / "run")
    (folder.logs / "train-17-rank0.log").write_text(STEPS + "RuntimeError: Connection closed by peer\n")
    (folder.logs / "train-17-rank3.log").write_text("Traceback (most recent call last):\nValueError: rank three\n")
    (folder.logs / "train-17-rank5.log").write_text("Traceback (most recent call last):\nValueError: rank five\n")
    (folder.logs / "train-17.log").write_text(
        "srun: error: nid005124: task 5: Exited with exit code 1\nsrun: error: nid005124: task 3: Exited with exit code 1\n"
    )
    values, _ = report_of("17")
    assert values["evidence"] == {"line": "ValueError: rank five", "place": "train-17-rank5.log:2", "rank": 5}
    assert values["records"] == 9


def test_torchrun_writes_a_log_for_each_node(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='COMPLETED')}")
    folder = make_run(work / "run")
    (folder.logs / "train-17-node0.log").write_text(STEPS)
    (folder.logs / "train-17-node1.log").write_text("nothing\n")
    assert report_of("17")[0]["records"] == 9


def test_out_of_memory_is_told_from_failed(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='FAILED')}")
    folder = make_run(work / "run")
    (folder.logs / "train-17-rank0.log").write_text(
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 9 GiB\n"
    )
    done = collect("17")
    assert "Outcome     out of memory of a device" in done.stdout
    assert "rank 0: torch.OutOfMemoryError" in done.stdout


def test_a_job_that_the_certificate_stopped(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='FAILED')}")
    folder = make_run(work / "run")
    (folder.logs / "train-17.log").write_text("srun: error: nid005124: task 0: Exited with exit code 78\n")
    rundir.write_json(
        folder.certificates / "17-r0.json", {"verdict": "wrong", "faults": ["rank 2 sits wrong"], "rows": []}
    )
    rundir.write_json(
        folder.certificates / "17-r1.json", {"verdict": "wrong", "faults": ["rank 3 sits wrong"], "rows": []}
    )
    values, _ = report_of("17")
    assert values["evidence"]["line"] == "rank 3 sits wrong"
    assert (values["starts"], values["certificate"]["verdict"]) == (2, "wrong")


def test_slurmdbd_is_down(work, slurm):
    slurm(1)
    folder = make_run(work / "run")
    (folder.logs / "train-17-rank0.log").write_text(STEPS + "Training Done\n")
    values, stderr = report_of("17")
    assert stderr.count("Warning:") == 1
    assert "the accounting does not answer" in stderr
    assert "Connection refused" in stderr
    assert (values["outcome"], values["records"], values["usage"], values["billing_units"]) == (
        "completed",
        9,
        None,
        None,
    )
    assert values["planned"]["billing_units"] == 8.0


def test_accounting_that_lags_is_asked_again(work, slurm, monkeypatch):
    monkeypatch.setattr("lumi_moai.gather.accounts.LAG_SECONDS", 5.0)
    monkeypatch.setattr(
        "lumi_moai.gather.accounts.time.sleep", lambda _: slurm(f"{HEADER}\n{DONE.format(id=17, state='COMPLETED')}")
    )
    slurm(f"{HEADER}\n{DONE.format(id=17, state='RUNNING')}")
    make_run(work / "run")
    assert report_of("17")[0]["outcome"] == "completed"


def test_a_running_job_is_not_waited_for(work, slurm, monkeypatch):
    monkeypatch.setattr("lumi_moai.gather.accounts.LAG_SECONDS", 60.0)
    slurm(f"{HEADER}\n{DONE.format(id=17, state='RUNNING')}", "17|RUNNING|None|0:10|1:00:00|2|standard-g|train")
    make_run(work / "run")
    assert report_of("17")[0]["outcome"] == "running"


def test_an_array_is_its_tasks(work, slurm):
    slurm(
        "\n".join(
            [HEADER, *(DONE.format(id=f"17_{task}", state="FAILED" if task == 1 else "COMPLETED") for task in range(3))]
        )
    )
    folder = make_run(work / "run", tasks=3)
    for task in range(3):
        (folder.logs / f"train-17_{task}-rank0.log").write_text(STEPS * (task == 0))
    values, _ = report_of("17")
    assert (values["outcome"], values["billing_units"], values["records"]) == ("failed", 12.0, 9)
    assert [task["job_id"] for task in values["tasks"]] == ["17_0", "17_1", "17_2"]
    assert [task["records"] for task in values["tasks"]] == [9, 0, 0]
    lines = collect("17", "--csv").stdout.splitlines()
    assert len(lines) == 4
    assert "2 of 3 completed" in collect("17").stdout


def test_a_local_run(work):
    folder = make_run(work / "run", "local-1", "local")
    (folder.logs / "train-local-1-rank0.log").write_text(STEPS)
    rundir.write_json(folder.accounting, {"state": "FAILED", "exit_codes": [0, -9, 15], "elapsed_seconds": 1800})
    values, _ = report_of("local-1")
    assert (values["outcome"], values["exit_code"], values["elapsed_seconds"]) == ("failed", "0:9", 1800)
    assert (values["usage"]["devices"], values["billing_units"], values["unit"]) == (16, 8.0, "device-hours")


def test_a_local_run_that_runs_and_one_whose_controller_died(work):
    folder = make_run(work / "run", "local-1", "local")
    assert report_of("local-1")[0]["outcome"] == "node_failure"
    facts = rundir.read_json(folder.path / "submitted.json")
    rundir.write_json(
        folder.path / "submitted.json", {**facts, "pid": os.getpid(), "pid_start": rundir.process_start(os.getpid())}
    )
    assert report_of("local-1")[0]["outcome"] == "running"


def test_a_job_that_lumi_moai_did_not_submit(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=99, state='TIMEOUT')}")
    values, _ = report_of("99", "--site", "lumi")
    assert (values["outcome"], values["billing_units"], values["records"]) == ("timeout", 4.0, 0)


def test_planned_against_billed_of_a_job_that_nobody_planned(work, slurm):
    slurm(f"{HEADER}|TimelimitRaw\n{DONE.format(id=99, state='COMPLETED')}|60")
    values, _ = report_of("99", "--site", "lumi")
    assert (values["billing_units"], values["planned"]["billing_units"], values["planned"]["hours"]) == (4.0, 8.0, 1.0)
    assert values["gap"] == {
        "billing_units": -4.0, "by_time": -4.0, "by_price": 0.0, "reasons": ["it ran 00:30:00 of 01:00:00"],
    }  # fmt: skip
    assert "            4 less: it ran 00:30:00 of 01:00:00\n" in collect("99", "--site", "lumi").stdout


def test_log_files(work):
    (work / "one.log").write_text(STEPS)
    (work / "two.log").write_bytes(
        b"\xff\xfe[Step 1/2] Loss: 2.0\r\x00\nslurmstepd: error: Detected 1 oom_kill event in StepId=9.0.\n"
    )
    values, _ = report_of(work / "one.log")
    assert (values["records"], values["outcome"], values["usage"]) == (9, "unknown", None)
    values, _ = report_of(work / "one.log", work / "two.log")
    assert [task["outcome"] for task in values["tasks"]] == ["unknown", "out_of_memory"]
    assert values["records"] == 10


def test_advice_and_the_network_beside_the_outcome(work):
    net = "nid1:9:9 [0] NCCL INFO NET/Plugin : No plugin found (librccl-net.so), using internal implementation\n"
    (work / "x.log").write_text(f"{net}{STEPS}torch.OutOfMemoryError: HIP out of memory. Tried to allocate 9 GiB\n")
    values, _ = report_of(work / "x.log")
    assert (values["outcome"], values["cause"]) == ("out_of_memory", "device_out_of_memory")
    assert "micro-batches" in values["advice"]
    (remark,) = values["remarks"]
    assert (remark["kind"], remark["place"], remark["line"]) == ("tcp_fallback", "x.log:1", net.strip())
    text = collect(work / "x.log").stdout
    assert "Outcome     out of memory of a device\n" in text
    assert "Advice      A device's memory did not suffice." in text
    assert "Beside      nid1:9:9" in text


def test_the_part_of_the_peak_names_the_peak(work):
    lines = [
        f"completed step: {n}, seconds: 5.0, TFLOP/s/device: 95.75, Tokens/s/device: 8.0, loss: 10.3\n"
        for n in range(4)
    ]
    (work / "x.log").write_text("".join(lines))
    values, _ = report_of(work / "x.log", "--site", "lumi")
    assert (values["tflops"], values["mfu"], values["mfu_peak_tflops"]) == (95.75, 0.5, 191.5)
    assert (
        "Device      95.75 TFLOP/s, 50 % of its peak of 191.5 (median)"
        in collect(work / "x.log", "--site", "lumi").stdout
    )
    values, _ = report_of(work / "x.log", "--site", "local")
    assert (values["tflops"], values["mfu"], values["mfu_peak_tflops"]) == (95.75, None, None)
    (work / "y.log").write_text(
        "".join(f"step: {n}  loss:  1.2  tps: 3,322  tflops: 50.0  mfu: 25.00%\n" for n in range(4))
    )
    values, _ = report_of(work / "y.log", "--site", "lumi")
    assert (values["mfu"], values["mfu_peak_tflops"]) == (0.25, 200.0)


def test_advice_that_cannot_be_read_is_left_out(work, monkeypatch):
    from lumi_moai import catalog

    (work / "advice").mkdir()
    (work / "advice" / "causes.yaml").write_text("unknown: [1]\n")
    monkeypatch.setenv("LUMI_MOAI_PATH", str(work))
    catalog.advice.cache_clear()
    (work / "x.log").write_text(STEPS)
    values, stderr = report_of(work / "x.log")
    catalog.advice.cache_clear()
    assert (values["records"], values["advice"]) == (9, None)
    assert "causes.yaml: unknown: [1] should be text" in stderr


def test_a_torn_job_file_loses_the_plan_only(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='COMPLETED')}")
    folder = make_run(work / "run")
    folder.job_file.write_text('{"job": {')
    (folder.logs / "train-17-rank0.log").write_text(STEPS)
    values, stderr = report_of("17")
    assert "torn or not JSON" in stderr
    assert (values["records"], values["billing_units"], values["planned"]) == (9, 4.0, None)


def test_a_site_that_is_gone_loses_the_bill_only(work, slurm):
    folder = make_run(work / "run")
    facts = rundir.read_json(folder.path / "submitted.json")
    rundir.write_json(folder.path / "submitted.json", {**facts, "site": "atlantis"})
    values, stderr = report_of(folder.path)
    assert "there is no site 'atlantis'" in stderr
    assert values["billing_units"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing"], "there is no run 'nothing' among yours"),
        (["77", "--site", "lumi"], "there is no job 77 in the accounting of site lumi"),
        (["empty/"], "is not the folder of a submitted run"),
        (["locked.log"], "cannot be read"),
    ],
)
def test_what_cannot_be_collected(work, slurm, words, sentence, monkeypatch):
    (work / "empty").mkdir()
    (work / "locked.log").write_text("x")
    if words == ["locked.log"]:
        monkeypatch.setattr("builtins.open", refuse(open))
    done = collect(*words)
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def refuse(real):
    """`open` that may not open logs, also for root, who may open anything."""

    def opened(path, *args, **kwargs):
        if str(path).endswith(".log"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    return opened


def test_from_python(work, slurm):
    slurm(f"{HEADER}\n{DONE.format(id=17, state='COMPLETED')}")
    found = gather.collect_run(RunFolder(make_run(work / "run").path), "17")
    assert (found.outcome, found.bill.billing_units, found.log) == ("completed", 4.0, None)


def test_memory_does_not_grow_with_the_log(work):
    """The promise is 100 MB for 1 GB; 20 MB of log show whether anything keeps it."""
    line = b"[Step 7/99] | Loss: 1.5000 | Duration: 1.000 | Throughput: 20480.00 tokens/sec\n"
    with open(work / "big.log", "wb") as file:
        for _ in range(20):
            file.write(line * (2**20 // len(line)))
    probe = (
        "from lumi_moai.cli import main\n"
        "main(['collect', 'big.log'], standalone_mode=False)\n"
        # not getrusage: its peak counts the parent before the program was started
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 80 * 1024  # numpy is 15 MB of it
