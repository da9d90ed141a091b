"""Logs and accounting in whatever they were packed."""

import gzip
import json
import shutil

import pytest

from lumi_moai.errors import RunError
from lumi_moai.gather.files import read_log
from lumi_moai.gather.runs import collect

LINES = "".join(f"[Step {n}/99] | Loss: 2.5 | Duration: 0.5 | Throughput: 100.0 tokens/sec é\n" for n in range(1, 50))


@pytest.mark.parametrize(
    "packed",
    [
        LINES.encode(),
        gzip.compress(LINES.encode()),
        LINES.encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        gzip.compress(LINES.encode("utf-16")),
        gzip.compress(LINES[:900].encode()) + gzip.compress(LINES[900:].encode()),
    ],
    ids=["plain", "gzip", "utf-16", "utf-16-be", "both", "two members"],
)
def test_a_packed_log_is_the_log(work, packed):
    (work / "x.log").write_bytes(packed)
    log = read_log(work / "x.log")
    assert (log.records, log.last_step, log.throughput.median) == (49, 49, 100)


def test_zstandard(work):
    zstandard = pytest.importorskip("zstandard")
    (work / "x.zst").write_bytes(zstandard.ZstdCompressor().compress(LINES.encode()))
    assert read_log(work / "x.zst").records == 49


@pytest.mark.parametrize(
    ("packed", "words"), [(gzip.compress(LINES.encode())[:-30], "ended before"), (b"\x1f\x8b\x00", "cannot be read")]
)
def test_a_torn_one_is_refused(work, packed, words):
    (work / "x.log").write_bytes(packed)
    with pytest.raises(RunError, match=words):
        read_log(work / "x.log")


def test_accounting_in_a_file(work):
    from test_sacct import LUMI, RECORDED

    shutil.copy(RECORDED / "lab-22.05-parsable2.txt", work / "sacct.txt")
    report = collect([str(work / "sacct.txt")], LUMI)
    whole = next(task for task in report.tasks if task.job_id == "1001025")
    assert whole.bill.billing_units == pytest.approx(2 * 4 * whole.accounting.usage.hours)
    (work / "sacct.json").write_bytes(gzip.compress(json.dumps({"jobs": [{"job_id": 7, "name": "a"}]}).encode()))
    assert collect([str(work / "sacct.json")], LUMI).job_id == "7"
