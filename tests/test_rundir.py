"""The run folder and the ledger: whole files or none, two writers, torn lines, full and read-only disks."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumi_moai import rundir
from lumi_moai.errors import RunError
from lumi_moai.rundir import Entry, RunFolder


def entry(job_id="1", **more):
    known = {"name": "train", "folder": f"/runs/{job_id}", "site": "local", "scheduler": "local", "submitted": 1.0,
             "units_per_hour": 0.5, "unit": "GPU-hours"}  # fmt: skip
    return Entry(job_id=job_id, **{**known, **more})


def test_a_later_line_replaces_an_earlier_one():
    rundir.record(entry("1"), entry("2"))
    rundir.record(entry("1", state="COMPLETED"))
    assert [(e.job_id, e.state) for e in rundir.entries()] == [("1", "COMPLETED"), ("2", None)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary())
def test_a_torn_ledger_loses_one_run_at_most(junk):
    path = rundir.state_folder() / "runs.jsonl"
    path.unlink(missing_ok=True)
    rundir.record(entry("1"))
    with open(path, "ab") as file:
        file.write(junk)
    rundir.record(entry("2"))
    assert {e.job_id for e in rundir.entries()} >= {"1", "2"}


def test_two_writers_lose_nothing():
    script = (
        "import sys; from test_rundir import entry; from lumi_moai import rundir\n"
        "for n in range(50): rundir.record(entry(f'{sys.argv[1]}{n}')); print(rundir.next_local_id())"
    )
    env = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{Path(__file__).parent}"}

    def write(name):
        words = [sys.executable, "-c", script, name]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.split()

    with ThreadPoolExecutor() as pool:
        ids = [job_id for printed in pool.map(write, "ab") for job_id in printed]
    assert len(rundir.entries()) == 100
    assert len(set(ids)) == 100


def test_a_run_folder_is_only_its_owners(work):
    assert os.stat(rundir.make(work / "run").path).st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made(work):
    (work / "file").touch()
    with pytest.raises(RunError, match="cannot be made: Not a directory; choose another with --runs"):
        rundir.make(work / "file" / "run")


def test_a_failed_write_leaves_the_old_file(work, monkeypatch):
    path = work / "x.json"
    rundir.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        rundir.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(work.iterdir()) == [path]


def test_a_really_full_disk(work):
    """A file system of 64 KiB, when we may mount one."""
    disk = work / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("NOT TESTED ON A FULL DISK: mounting needs root")
    try:
        (disk / "filler").write_bytes(b"x" * 61440)
        with pytest.raises(RunError, match="No space left on device"):
            rundir.write_text(disk / "x", "y" * 100_000)
        assert [path.name for path in disk.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "null"])
def test_a_torn_file_is_a_sentence(work, text):
    (work / "job.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"job\.json"):
        RunFolder(work).job()


def test_finding_runs(work):
    rundir.record(entry("123", tasks=3, folder=str(work)))
    assert rundir.find("123")[0].path == work
    assert rundir.find("123_2") == (RunFolder(work), "123_2")
    with pytest.raises(RunError, match="no run '5' among yours"):
        rundir.find("5")
