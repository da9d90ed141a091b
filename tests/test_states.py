"""What becomes of jobs: one squeue for all, sacct only for those that ended, advice, ages and failures."""

import time

import pytest
from fake_slurm import install
from hypothesis import given
from hypothesis import strategies as st
from test_rundir import entry

from lumi_moai import queue, rundir, slurm
from lumi_moai.errors import SlurmError, SlurmTimeout
from lumi_moai.launch.states import forget_queue, states

HEADER = "JobID|JobName|State|ExitCode|Partition|Account|ElapsedRaw|AllocTRES|NNodes"


def slurm_entry(job_id, **more):
    return entry(job_id, scheduler="slurm", site="lumi", folder=f"/runs/{job_id}", units_per_hour=4.0, **more)


def squeue_says(*lines):
    return "cat <<'E'\n" + "\n".join(lines) + "\nE"


def test_a_thousand_jobs_are_one_squeue(work, monkeypatch):
    lines = [f"{n}|RUNNING|None|1:00:00|2:00:00|1|standard-g|train" for n in range(1000)]
    calls = install(work, monkeypatch, squeue=squeue_says(*lines), sacct="exit 1")
    rundir.record(*(slurm_entry(str(n)) for n in range(1000)))
    found = states(rundir.entries())
    assert len(found.rows) == 1000
    assert {row.billing_units for row in found.rows} == {4.0}
    assert len(calls.read_text().splitlines()) == 1
    states(rundir.entries())
    assert len(calls.read_text().splitlines()) == 1, "a second look within seconds asks nobody"
    rundir.record(slurm_entry("2000", submitted=time.time() + 1))
    states(rundir.entries())
    assert len(calls.read_text().splitlines()) > 1, "a job newer than the answer is looked for"


def test_ended_jobs_are_asked_for_once(work, monkeypatch):
    calls = install(
        work, monkeypatch, squeue=squeue_says(),
        sacct=squeue_says(HEADER, "7|train|CANCELLED by 1000|0:0|standard-g|p|1800|gres/gpu=8,node=1|1"),
    )  # fmt: skip
    rundir.record(slurm_entry("7"))
    (row,) = states(rundir.entries()).rows
    assert (row.state, row.elapsed_seconds, row.billing_units) == ("CANCELLED", 1800, 2.0)
    forget_queue()
    (row,) = states(rundir.entries()).rows
    assert row.state == "CANCELLED"
    assert sum(line.startswith("sacct") for line in calls.read_text().splitlines()) == 1


def test_an_array_is_a_row_for_each_run_until_all_have_ended(work, monkeypatch):
    rundir.record(slurm_entry("9", tasks=3))
    sacct = squeue_says(
        HEADER, *(f"9_{n}|train|{s}|0:0|standard-g|p|360|node=1|1" for n, s in enumerate(["COMPLETED", "FAILED"]))
    )
    install(work, monkeypatch, squeue=squeue_says("9_2|RUNNING|None|6:00|1:00:00|1|standard-g|train"), sacct=sacct)
    rows = states(rundir.entries()).rows
    assert {(row.job_id, row.state) for row in rows} == {("9_0", "COMPLETED"), ("9_1", "FAILED"), ("9_2", "RUNNING")}
    assert rundir.entries()[0].state is None
    install(
        work,
        monkeypatch,
        squeue=squeue_says(),
        sacct=sacct.replace("\nE", "\n9_2|train|COMPLETED|0:0|standard-g|p|360|node=1|1\nE"),
    )
    forget_queue()
    states(rundir.entries())
    assert (rundir.entries()[0].state, rundir.entries()[0].elapsed_seconds) == ("FAILED", 1080)


def test_slurmdbd_down_is_a_warning_and_nothing_is_lost(work, monkeypatch):
    words = (
        "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection: Connection refused"
    )
    install(
        work,
        monkeypatch,
        squeue=squeue_says("1|RUNNING|None|1:00|1:00:00|1|standard-g|a"),
        sacct=f"echo '{words}' >&2; exit 1",
    )
    rundir.record(slurm_entry("1"), slurm_entry("2"))
    found = states(rundir.entries())
    assert [row.state for row in found.rows] == ["RUNNING", "UNKNOWN"]
    assert "Connection refused" in found.warnings[0]
    assert all(e.state is None for e in rundir.entries())


def test_squeue_down_shows_the_last_answer_and_its_age(work, monkeypatch):
    install(work, monkeypatch, squeue=squeue_says("1|RUNNING|None|1:00|1:00:00|1|standard-g|a"))
    rundir.record(slurm_entry("1"))
    states(rundir.entries())
    install(work, monkeypatch, squeue="exit 1")
    found = states(rundir.entries(), max_age=0)
    assert found.rows[0].state == "RUNNING"
    assert found.warnings
    assert found.age_seconds > 0


def test_a_slow_slurm_is_a_sentence(work, monkeypatch):
    install(work, monkeypatch, squeue="sleep 20")
    monkeypatch.setenv("LUMI_MOAI_SLURM_SECONDS", "0.2")
    with pytest.raises(SlurmTimeout, match="squeue did not answer within 0.2 seconds"):
        slurm.squeue()


def test_a_missing_slurm_is_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match="squeue is not on this machine; run this on a login node"):
        slurm.squeue()


def test_slurms_own_words_and_what_to_do(work, monkeypatch):
    said = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
    install(work, monkeypatch, sbatch=f"echo '{said}' >&2; exit 1")
    with pytest.raises(SlurmError) as error:
        slurm.call(["sbatch", "x"])
    assert said.removeprefix("sbatch: ") in str(error.value)
    assert "What to do: name your project with --account" in str(error.value)


@given(st.text())
def test_squeue_may_say_anything(text):
    queue.parse(text, slurm.QUEUE_FIELDS)


def test_names_may_hold_the_separator():
    (row,) = queue.parse("5_[0-9]|PENDING|Priority|0:00|1:00:00|2|standard-g|a|b", slurm.QUEUE_FIELDS)
    assert (row.name, row.advice) == ("a|b", "other jobs come first; it starts when they have")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1-02:03:04", 93784), ("02:03:04", 7384), ("3:04", 184), ("INVALID", 0), ("", 0)]
)
def test_elapsed_times(text, seconds):
    (row,) = queue.parse(f"1|RUNNING|None|{text}|1:00:00|1|p|n", slurm.QUEUE_FIELDS)
    assert row.elapsed_seconds == seconds


def test_reasons_with_more_behind_them_are_still_translated():
    (row,) = queue.parse("1|PENDING|ReqNodeNotAvail, UnavailableNodes:nid[1-2]|0:00|1:00|1|p|n", slurm.QUEUE_FIELDS)
    assert "maintenance" in row.advice


def test_the_environment_of_an_outer_job_does_not_leak(monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "x")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    env = slurm.clean_environment()
    assert "SBATCH_PARTITION" not in env
    assert "SLURM_JOB_ID" not in env
    assert env["SLURM_CONF"] == "/etc/slurm.conf"
