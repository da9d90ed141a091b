"""Reports as text, JSON and CSV, from everything known to nothing known."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import report
from lumi_moai.logs import Evidence, Log
from lumi_moai.report import Certificate, Estimate, Planned, Report
from lumi_moai.report import estimate as price
from lumi_moai.report.gap import gap
from lumi_moai.usage import Accounting, Balance, Bill, Throughput, Usage

STABLE = [
    "outcome", "records", "first_step", "last_step", "loss_last", "throughput", "world_size", "usage", "billing_units",
    "planned",
]  # fmt: skip
USAGE = Usage(partition="standard-g", nodes=2, devices=16, cores=112, memory_gib=960.0, hours=0.5)
BILL = Bill(billing_units=4.0, unit="GPU-hours", hours=0.5, decided_by="nodes")
FULL = Report(
    name="train",
    job_id="17",
    site="lumi",
    outcome="failed",
    evidence=Evidence(outcome="failed", line="ValueError: no", place="train-17-rank3.log:6", rank=3),
    log=Log(
        name="train-17-rank0.log", format="moai", records=560, first_step=1, last_step=560, max_step=560, total_steps=560,
        loss_first=10.82, loss_last=1.85, loss_min=1.72, first_seconds=12.3, first_rate=800.0, step_seconds=0.94,
        throughput=Throughput(median=34816.25, p10=30000.0, p90=35000.0, unit="tokens_per_second"), steady_records=559, restarts=1, nan_steps=2,
        tokens_per_second=Throughput(median=34816.25, p10=30000.0, p90=35000.0, unit="tokens_per_second"),
    ),
    accounting=Accounting(
        job_id="17", name="train", state="FAILED", partition="standard-g", account="p", usage=USAGE,
        elapsed_seconds=1800, exit_code="1:0", max_rss_gib=3.2,
    ),
    bill=BILL,
    planned=Planned(billing_units=8.0, unit="GPU-hours", hours=1.0, nodes=2, devices=16),
    certificate=Certificate(verdict="right", ranks=16, remarks=("a", "b", "c", "d")),
    world_size=16,
    starts=2,
)  # fmt: skip
EMPTY = Report(name="x", outcome="unknown")


def test_the_text_of_a_full_report():
    assert report.as_text(FULL).splitlines() == [
        "Run         train, job 17 on lumi, partition standard-g",
        "Outcome     failed",
        "            rank 3: ValueError: no",
        "            (train-17-rank3.log:6)",
        "Starts      2: the job was requeued",
        "Steps       1 to 560 of 560, 560 logged; the step number went back once",
        "Loss        10.82 at first, 1.85 at last, 1.72 at least; not a number in 2 of them",
        "First step  12.3 s, 800 tokens/s; it holds the start-up and is not in the figures below",
        "Step time   0.94 s (median)",
        "Throughput  34,816 tokens/s, 2,176 per device (median of 559)",
        "Ranks       16",
        "Binding     right (16 ranks certified, 4 remarks)",
        "            a",
        "            b",
        "            c",
        "            and 1 more, in the run folder's certificate/",
        "Used        00:30:00 of 2 nodes, 16 devices, 112 cores, 960G; the largest task used 3277M",
        "Bill        4 GPU-hours, decided by nodes",
        "Planned     8 GPU-hours for the time limit of 01:00:00; 50 % of it was used",
        "            4 less: it ran 00:30:00 of 01:00:00 in 2 starts, each of which is billed",
        "Price       0.06383 GPU-hours for a million tokens at the steady rate, 0.2183 with start-up and end",
    ]


def test_the_text_of_an_empty_report():
    assert report.as_text(EMPTY) == "Run         x\nOutcome     unknown\n"


@pytest.mark.parametrize("what", [FULL, EMPTY, report.together("two", [FULL, EMPTY])])
def test_json_keys_are_stable(what):
    values = report.as_dict(what)
    assert list(values)[: len(STABLE)] == STABLE
    assert list(values["throughput"]) == ["median", "p10", "p90", "unit", "scope"]
    json.dumps(values)
    assert list(values) == list(report.as_dict(EMPTY))


def test_json_of_a_full_report():
    values = report.as_dict(FULL)
    assert values["throughput"] == {
        "median": 34816.25, "p10": 30000.0, "p90": 35000.0, "unit": "tokens_per_second", "scope": "total",
    }  # fmt: skip
    assert values["usage"]["hours"] == 0.5
    assert values["planned"]["billing_units"] == 8.0
    assert values["evidence"] == {"line": "ValueError: no", "place": "train-17-rank3.log:6", "rank": 3}


def test_the_gap_is_the_sum_of_its_parts_with_a_reason_for_each():
    dear = replace(FULL, bill=replace(BILL, billing_units=24.0, hours=1.5, decided_by="memory"), planned=replace(
        FULL.planned, nodes=1, devices=8))  # fmt: skip
    found = report.as_dict(dear)["gap"]
    assert found["billing_units"] == 16 == found["by_time"] + found["by_price"]
    assert (found["by_time"], found["by_price"]) == (4, 12)
    assert found["reasons"] == (
        "it ran 01:30:00 of 01:00:00 in 2 starts, each of which is billed",
        "an hour cost 16 instead of 8 with 2 nodes instead of 1 and 16 devices instead of 8, decided by memory",
    )
    assert report.as_dict(replace(FULL, planned=None))["gap"] is None
    assert report.as_dict(replace(FULL, planned=replace(FULL.planned, unit="core-hours")))["gap"] is None
    exact = replace(FULL, bill=replace(BILL, billing_units=8.0, hours=1.0), starts=1)
    assert report.as_dict(exact)["gap"]["reasons"] == ()


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e3), st.floats(0.01, 1e4), st.floats(0.01, 1e3))
def test_any_gap_is_the_sum_of_its_parts(units, hours, planned_units, planned_hours):
    found = gap(replace(FULL, bill=replace(BILL, billing_units=units, hours=hours),
                        planned=replace(FULL.planned, billing_units=planned_units, hours=planned_hours)))  # fmt: skip
    scale = units + planned_units + planned_units / planned_hours * hours
    assert found.by_time + found.by_price == pytest.approx(units - planned_units, abs=1e-9 * scale)


def test_the_price_of_a_million_tokens():
    rate = Throughput(median=1000.0, unit="tokens_per_second")
    log = Log(name="x", records=9, first_step=1, last_step=2, max_step=9, step_seconds=2.0, tokens_per_second=rate)
    values = report.as_dict(replace(FULL, log=log))  # 8 GPU-hours an hour, 3.6 million tokens an hour; 18,000 tokens
    assert values["billing_units_per_million_tokens"] == pytest.approx(8 / 3.6)
    assert values["billing_units_per_million_tokens_overall"] == pytest.approx(4 / 0.018)
    each = replace(log, tokens_per_second=replace(rate, scope="per_device"), step_seconds=None)
    values = report.as_dict(replace(FULL, log=each))
    assert values["billing_units_per_million_tokens"] == pytest.approx(8 / 3.6 / 16)
    assert values["billing_units_per_million_tokens_overall"] is None
    assert report.as_dict(replace(FULL, bill=None))["billing_units_per_million_tokens"] is None
    assert report.as_dict(replace(FULL, accounting=None, world_size=None, log=each))[
        "billing_units_per_million_tokens"] is None  # fmt: skip


def test_csv_has_a_line_for_each_run():
    rows = list(csv.DictReader(io.StringIO(report.as_csv([report.together("two", [FULL, EMPTY]), FULL]))))
    assert [row["job_id"] for row in rows] == ["17", "", "17"]
    assert rows[0]["throughput"] == "34816.25"
    assert rows[1]["billing_units"] == ""


def test_several_runs_together():
    done = Report(name="train", job_id="17_0", site="lumi", outcome="completed", bill=BILL, world_size=16)
    whole = report.together("train", [done, FULL, done], job_id="17")
    assert (whole.outcome, whole.bill.billing_units, whole.site, whole.world_size) == ("failed", 12.0, "lumi", 16)
    text = report.as_text(whole)
    assert "failed (2 of 3 completed)" in text
    assert "17_0  completed" in text


def test_bills_of_different_units_have_no_sum():
    other = Report(
        name="b", outcome="completed", bill=Bill(billing_units=1, unit="core-hours", hours=1, decided_by="cores")
    )
    assert report.together("two", [FULL, other]).bill is None


def test_odd_logs_have_a_text():
    one = Log(name="x", records=1, first_step=1, last_step=1, first_rate=5.0)
    nan = Log(name="x", records=2, first_step=1, last_step=2, loss_first=math.nan, loss_last=math.nan)
    per_device = Log(
        name="x", records=2, throughput=Throughput(median=5.0, unit="tokens_per_second", scope="per_device")
    )
    texts = [
        report.as_text(Report(name="x", outcome="completed", log=log, world_size=4)) for log in (one, nan, per_device)
    ]
    assert "only one step was logged" in texts[0]
    assert "nan at last" in texts[1]
    assert "5 tokens/s per device, 20 in total" in texts[2]
    assert "Steps       2 logged, without a number" in texts[2]


def test_an_estimate_shows_what_it_is_part_of():
    trimmed = Usage(partition="small-g", nodes=1, devices=16, cores=112, memory_gib=960.0, hours=0.5)
    found = Estimate(
        title="flavor 2xLarge",
        site="lumi",
        usage=USAGE,
        bill=BILL,
        cheaper=(trimmed, Bill(billing_units=1.0, unit="GPU-hours", hours=0.5, decided_by="devices")),
        tasks=10,
        balance=Balance(account="project_465000001", unit="GPU-hours", alloc=1000, used=920),
        notes=("one", "two"),
    )
    assert price.as_text(found).splitlines() == [
        "Job         flavor 2xLarge on lumi, partition standard-g",
        "Resources   2 nodes, 16 devices, 112 cores, 960G in all",
        "Time        00:30:00 x 10 tasks",
        "Price       40 GPU-hours (80 an hour), decided by nodes",
        "Cheaper     10 GPU-hours (75 % less) with partition small-g, 1 node, if that is enough",
        "Allocation  project_465000001 has 80 of 1,000 GPU-hours left; this takes 50 %",
        "Note        one",
        "            two",
    ]
    assert price.as_dict(found)["allocation"]["share_of_left"] == 0.5


@pytest.mark.parametrize(
    ("used", "words"), [(1000, "none are left"), (1200, "none are left"), (999, "more than there is")]
)
def test_an_allocation_that_is_used_up(used, words):
    balance = Balance(account="p", unit="GPU-hours", alloc=1000, used=used)
    found = Estimate(title="x", site="lumi", usage=USAGE, bill=BILL, balance=balance)
    assert words in price.as_text(found)
