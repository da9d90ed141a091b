"""sacct's text: recorded from several sites, odd by hand, and arbitrary."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import catalog, sacct

RECORDED = Path(__file__).parent / "recorded" / "sacct"
LUMI = catalog.site("lumi")
HEADER = "JobID|JobName|State|ExitCode|Partition|Account|ElapsedRaw|AllocTRES|NNodes|MaxRSS|Start|End|Reason"


def parse(*rows, header=HEADER):
    return sacct.parse("\n".join([header, *rows]) + "\n", LUMI)


def recorded(name):
    return {job.job_id: job for job in sacct.parse((RECORDED / name).read_text(), LUMI)}


def test_a_real_cluster():
    jobs = recorded("lab-22.05-parsable2.txt")
    whole = jobs["1001025"]
    assert (whole.usage.nodes, whole.usage.devices, whole.usage.cores, whole.usage.memory_gib) == (2, 16, 112, 960)
    assert (whole.state, whole.elapsed_seconds, whole.exit_code) == ("COMPLETED", 3, "0:0")
    assert whole.max_rss_gib == pytest.approx(16200 / 1024**2)
    assert whole.account == "project_465000001"
    assert (whole.start, whole.reason) == ("2026-11-21T04:19:19", "")
    assert [jobs[f"1001027_{task}"].usage.devices for task in range(3)] == [1, 1, 1]
    assert (jobs["1001030"].state, jobs["1001030"].reason, jobs["1001030"].exit_code) == ("CANCELLED", "by 0", "0:15")
    assert jobs["1001031"].state == "TIMEOUT"
    assert jobs["1001026"].exit_code == "15:0"


def test_total_and_typed_devices_are_the_same_devices():
    both, typed, two = parse(
        "1|a|RUNNING|0:0|small-g|p|60|billing=14,cpu=14,gres/gpu=2,gres/gpu:mi250=2,mem=60G,node=1|1||||",
        "2|a|RUNNING|0:0|small-g|p|60|cpu=14,gres/gpu:mi250=2,mem=60G,node=1|1||||",
        "3|a|RUNNING|0:0|small-g|p|60|cpu=14,gres/gpu:a=2,gres/gpu:b=1,gres/tmp=9,mem=60G,node=1|1||||",
    )
    assert (both.usage.devices, typed.usage.devices, two.usage.devices) == (2, 2, 3)


def test_cpus_are_hardware_threads():
    (job,) = parse("1|a|COMPLETED|0:0|small-g|p|3600|cpu=14,gres/gpu=1,mem=61440M,node=1|1||||")
    assert (job.usage.cores, job.usage.memory_gib, job.usage.hours) == (7, 60, 1)


def test_a_partition_that_the_site_does_not_know_counts_as_it_is():
    (job,) = parse("1|a|COMPLETED|0:0|other|p|3600|cpu=14,mem=1T,node=1|1||||")
    assert (job.usage.cores, job.usage.memory_gib) == (14, 1024)


def test_out_of_memory_that_only_the_step_knows():
    (job,) = parse(
        "6114624|a|FAILED|1:0|small-g|p|60|cpu=2,mem=3840M,node=1|1||||",
        "6114624.extern|extern|COMPLETED|0:0||p|60|cpu=2|1|0|||",
        "6114624.0|bash|OUT_OF_MEMORY|0:125||p|60|cpu=2|1|3406408K|||",
    )
    assert (job.state, job.exit_code) == ("OUT_OF_MEMORY", "1:0")
    assert job.max_rss_gib == pytest.approx(3.2486, abs=1e-3)


def test_a_pending_array_has_taken_nothing():
    waiting, done = parse(
        "20956421_[2-4%25]|a|PENDING|0:0|small-g|p|0||1||Unknown|Unknown|Resources",
        "20956421_0|a|COMPLETED|0:0|small-g|p|10|cpu=2,gres/gpu=1,mem=1G,node=1|1||||None",
    )
    assert (waiting.job_id, waiting.state, waiting.reason, waiting.usage.nodes, waiting.start) == (
        "20956421_[2-4%25]", "PENDING", "Resources", 0, None,
    )  # fmt: skip
    assert done.usage.devices == 1


def test_a_name_with_the_separator():
    (job,) = parse("7|a|b|c|COMPLETED|0:0|small-g|p|3600|cpu=2,node=1|1||||")
    assert (job.name, job.state, job.elapsed_seconds) == ("a|b|c", "COMPLETED", 3600)


def test_every_start_of_a_requeued_job_counts():
    (job,) = parse(
        "9|a|NODE_FAIL|0:0|small-g|p|100|cpu=14,gres/gpu=1,mem=60G,node=1|1||2026-01-01T00:00:00|2026-01-01T00:01:40|",
        "9|a|COMPLETED|0:0|small-g|p|50|cpu=14,gres/gpu=1,mem=60G,node=1|1||2026-01-01T00:05:00|2026-01-01T00:05:50|",
        "9.0|a|COMPLETED|0:0||p|50|cpu=14|1|1G|||",
    )
    assert (job.state, job.elapsed_seconds, job.restarts) == ("COMPLETED", 150, 1)


def test_other_fields_in_another_order():
    (job,) = parse("1-02:03:04|5+0.batch|x|", "1-02:03:04|5+0|COMPLETED|", header="Elapsed|JobID|State|")
    assert (job.job_id, job.state, job.elapsed_seconds) == ("5+0", "COMPLETED", 93784)


def test_recorded_heterogeneous_jobs():
    for name, first in (
        ("torchx-01-hetjob-parsable2.txt", "1853"),
        ("torchx-02-hetjob-parsable-trailing-pipe.txt", "176"),
    ):
        assert list(recorded(name)) == [f"{first}+{part}" for part in range(3)]
        assert {job.state for job in recorded(name).values()} == {"COMPLETED"}


def test_recorded_odds_and_ends():
    assert list(recorded("submitit-01-array-parsable2.txt")) == ["5610980", "20956421_0", "20956421_[2-4%25]"]
    assert recorded("alpine-04-failed-long-jobname.txt")["2355542"].state == "FAILED"
    assert recorded("kabre-01-history-no-jobid.csv") == {}  # no JobID column at all


def test_recorded_tables_for_people():
    (job,) = recorded("lumi-01-default-table.txt").values()
    assert (job.job_id, job.state, job.partition, job.usage.cores) == ("1234567", "COMPLETED", "standard", 256)
    (job,) = recorded("lumi-02-format-table.txt").values()
    assert job.max_rss_gib == pytest.approx(173.08 / 1024)
    (job,) = recorded("puhti-01-memory-table.txt").values()
    assert (job.elapsed_seconds, job.max_rss_gib) == (377, pytest.approx(145493 / 1024**2, rel=1e-4))


def test_recorded_raw_ids_and_times_in_seconds():
    jobs = recorded("jobstats-01-parsable2-alloctres-start-end-epoch.txt")
    assert jobs["60155093"].usage.devices == 1
    assert jobs["60155093"].elapsed_seconds == 1730774311 - 1730723367
    assert jobs["10920562"].elapsed_seconds == 0  # runs: its end is unknown


def test_recorded_json_of_two_versions():
    job = recorded("alpine-03-json-array-task.json")["12078642_6"]
    assert (job.state, job.exit_code, job.elapsed_seconds) == ("COMPLETED", "0:0", 326)
    assert (job.usage.cores, job.usage.memory_gib, job.usage.nodes) == (10, 37.5, 1)
    assert job.max_rss_gib == pytest.approx(3462881280 / 2**30)
    jobs = recorded("oz-01-json-subset.json")
    assert len(jobs) == 8
    assert jobs["9652708"].state == "OUT_OF_MEMORY"
    assert {"CANCELLED", "COMPLETED", "FAILED", "RUNNING", "TIMEOUT"} <= {job.state for job in jobs.values()}
    assert all(job.usage.devices == 0 for job in jobs.values())  # gres/tmp is no device


def test_a_table_whose_rule_does_not_fit_its_header():
    assert sacct.parse("  JobID State\n-- --\n1 2\n", LUMI) == ()


def versioned(wrap, state, step_id):
    """One job with a step, as a version of `sacct --json` writes it."""
    return {
        "job_id": 7, "name": "a", "partition": "small-g", "account": "p", "allocation_nodes": 1,
        "array": {"job_id": 0, "task_id": wrap(None)}, "het": {"job_id": 0, "job_offset": wrap(None)},
        "state": {"current": state, "reason": "None"}, "exit_code": {"status": "SUCCESS", "return_code": wrap(1)},
        "time": {"elapsed": 3600, "start": 1700000000, "end": 1700003600, "limit": wrap(120)},
        "tres": {"allocated": [{"type": "cpu", "name": "", "count": 14}, {"type": "mem", "name": "", "count": 61440},
                               {"type": "gres", "name": "gpu", "count": 1}, {"type": "gres", "name": "gpu:mi250", "count": 1}]},
        "steps": [{"step": step_id, "state": state, "exit_code": {"return_code": wrap(1)},
                   "tres": {"requested": {"max": [{"type": "mem", "name": "", "count": 2**30}]}}}],
    }  # fmt: skip


def plain(number):
    return number


def boxed(number):
    return {"set": number is not None, "infinite": False, "number": number or 0}


@pytest.mark.parametrize(
    ("wrap", "state", "step_id"),
    [
        (plain, "FAILED", {"job_id": 7, "step_id": 0, "name": "python"}),  # 21.08, 22.05
        (boxed, "FAILED", {"id": "7.0", "name": "python"}),  # 23.02
        (boxed, ["FAILED"], {"id": "7.0", "name": "python"}),  # 23.11, 24.05
        (boxed, ["FAILED", "REQUEUED"], {"id": "7.0", "name": "python"}),  # 24.11, 25.05
    ],
)
def test_json_of_slurm_21_to_25(wrap, state, step_id):
    (job,) = sacct.parse(json.dumps({"jobs": [versioned(wrap, state, step_id)], "meta": {}}), LUMI)
    assert (job.job_id, job.state, job.exit_code, job.elapsed_seconds) == ("7", "FAILED", "1:0", 3600)
    assert (job.usage.devices, job.usage.cores, job.usage.memory_gib, job.max_rss_gib) == (1, 7, 60, 1)
    assert job.limit_seconds == 7200


def test_json_with_duplicates():
    first, last = versioned(boxed, ["NODE_FAIL"], {}), versioned(boxed, ["COMPLETED"], {})
    last["time"] = {**last["time"], "start": 1700009999, "elapsed": 60}
    (job,) = sacct.parse(json.dumps({"jobs": [first, last]}), LUMI)
    assert (job.state, job.restarts, job.elapsed_seconds) == ("COMPLETED", 1, 3660)


@pytest.mark.parametrize(
    ("text", "gib"),
    [("61440M", 60), ("60G", 60), ("62914560K", 60), ("0.5T", 512), ("61440", 60), ("1.5G", 1.5), ("60Gn", 0), ("", 0)],
)
def test_suffixes_of_memory(text, gib):
    (job,) = parse(f"1|a|COMPLETED|0:0|small-g|p|3600|cpu=14,mem={text},node=1|1||||")
    assert job.usage.memory_gib == gib


@pytest.mark.parametrize(
    ("name", "text", "seconds"),
    [("TimelimitRaw", "120", 7200), ("Timelimit", "1-00:00:00", 86400), ("timelimit", "02:00:00", 7200),
     ("Timelimit", "UNLIMITED", None), ("Timelimit", "Partition_Limit", None), ("TimelimitRaw", "", None)],
)  # fmt: skip
def test_the_time_limit(name, text, seconds):
    (job,) = parse(f"{text}|1|COMPLETED", header=f"{name}|JobID|State")
    assert job.limit_seconds == seconds


def test_cancelled_by_a_user_in_a_table_that_cuts_words():
    (job,) = parse("1|a|CANCELLED by 327000|0:0|small-g|p|60|cpu=2,node=1|1||||")
    assert (job.state, job.reason) == ("CANCELLED", "by 327000")
    (job,) = parse("1|a|CANCELLED+|0:0|small-g|p|60|cpu=2,node=1|1||||")
    assert job.state == "CANCELLED"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["jobs", "job_id", "array", "task_id", "set", "number", "state", "current", "tres", "steps",
                         "allocated", "count", "type", "name", "exit_code", "signal", "time", "elapsed", "step"]),
        inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.just("job_id"), st.integers()), max_size=2), st.lists(JSON, max_size=3))
def test_any_json_is_read(jobs, others):
    for job in sacct.parse(json.dumps({"jobs": [*jobs, *others]}), LUMI):
        assert job.job_id


cells = st.lists(st.text(max_size=12) | st.sampled_from(["1", "1_2", "gres/gpu=²", "9" * 30, "1:0", "CANCELLED by 0"]))


@given(st.text() | st.lists(cells.map("|".join)).map(lambda rows: "\n".join([HEADER, *rows])))
def test_any_text_is_read(text):
    for job in sacct.parse(text, LUMI):
        assert job.job_id
        assert job.usage.hours >= 0
