"""What a run does is written down beside it, by a process that can neither stop nor slow it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_monitor import recorded

import lumi_moai
from lumi_moai.errors import RunError
from lumi_moai.monitor import record
from lumi_moai.monitor.record import Devices, Task, append
from lumi_moai.monitor.sample import Look
from lumi_moai.runtime import recorder
from lumi_moai.samples import Line, format_line, grouped, parse_line

TASK = Task(file=Path("x"), node="n1", start="r0", seconds=10.0, devices=8, per_package=2)
NUMBER = st.none() | st.integers(0, 10**7).map(lambda n: n / 10)


@st.composite
def looks(draw):
    size = draw(st.integers(0, 8))
    column = st.lists(NUMBER, min_size=size, max_size=size).map(tuple)
    return Line(
        time=draw(st.integers(0, 2**33)) / 4, node=draw(st.text()), start=draw(st.text()),
        source=draw(st.none() | st.text()), devices=tuple(range(size)), per_package=draw(st.integers(1, 8)),
        memory_used_mib=draw(column), memory_total_mib=draw(column), utilisation_percent=draw(column),
        power_watts=draw(column), host_used_mib=draw(NUMBER), host_total_mib=draw(NUMBER), load=draw(NUMBER),
        ranks_mib=draw(NUMBER), log=draw(st.none() | st.text()), log_bytes=draw(st.none() | st.integers(0, 2**60)),
    )  # fmt: skip


@settings(deadline=None)
@given(looks())
def test_what_is_written_is_what_is_read(line):
    text = format_line(line)
    assert text.count("\n") == 1
    assert parse_line(text) == line


@settings(deadline=None)
@given(looks(), st.data())
def test_a_torn_or_changed_line_is_read_or_passed_over(line, data):
    text = format_line(line)
    cut = data.draw(st.integers(0, len(text) - 2))
    assert parse_line(text[:cut]) is None
    value = json.loads(text)
    value[data.draw(st.sampled_from(sorted(value)))] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.none() | st.floats() | st.text())
    )
    found = parse_line(json.dumps(value))
    if found is not None:
        for name in ("memory_used_mib", "memory_total_mib", "utilisation_percent", "power_watts"):
            assert len(getattr(found, name)) == len(found.devices)


@settings(deadline=None)
@given(st.binary() | st.text())
def test_any_text_is_a_line_or_none(text):
    assert parse_line(text) is None or isinstance(parse_line(text), Line)


def test_a_value_that_no_number_is_becomes_null_in_the_file():
    line = replace(Line(time=1.0, node="n", start="r0"), devices=(0,), power_watts=(float("nan"),), load=float("inf"))
    assert '"power_watts":[null]' in format_line(line)
    assert '"load":null' in format_line(line)


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 10.0), ("often", 10.0), ("60", 60.0), ("0.01", 1.0), ("0", None), ("-1", None), ("nan", None)]
)  # fmt: skip
def test_how_often(text, seconds):
    assert recorder.interval({} if text is None else {"LUMI_MOAI_SAMPLE_SECONDS": text}) == seconds


def said(capfd):
    return capfd.readouterr().err.splitlines()


def test_a_reader_that_is_not_there_is_one_sentence(monkeypatch, capfd):
    asked = []

    def absent(node):
        asked.append(node)
        raise RunError("it is not installed")

    monkeypatch.setattr(record, "READERS", {"rocm-smi": absent, "amdsmi": absent})
    devices = Devices(replace(TASK, sources=("rocm-smi", "amdsmi")))
    assert [devices.look() for _ in range(5)] == [(None, Look())] * 5
    assert asked == ["n1", "n1"]
    (sentence,) = said(capfd)
    assert sentence.endswith("(amdsmi: it is not installed; rocm-smi: it is not installed)")


def test_a_reader_may_fail_now_and_then_but_not_for_good(monkeypatch, capfd):
    answers = iter("ok no no ok no no no ok".split())

    def moody(node):
        if next(answers) == "no":
            raise RunError("it does not answer")
        return recorded("rocm-smi-6.3-mi250x.json")

    monkeypatch.setattr(record, "READERS", {"rocm-smi": moody})
    devices = Devices(replace(TASK, sources=("rocm-smi",)))
    seen = [devices.look()[0] for _ in range(10)]
    assert [source is not None for source in seen] == [True, False, False, True] + [False] * 6
    assert len(said(capfd)) == 1


def test_both_dies_of_a_package_share_one_reading(monkeypatch):
    """As rocm-smi shows them: the second die says N/A, which is null in the line and never a zero."""
    monkeypatch.setattr(record, "READERS", {"rocm-smi": lambda _: recorded("rocm-smi-6.3-mi250x.json")})
    task = replace(TASK, sources=("rocm-smi",))
    line = parse_line(format_line(record.look(task, Devices(task), record.Ranks((os.getpid(),)))))
    assert line.devices == tuple(range(8))
    assert [watts is None for watts in line.power_watts] == [False, True] * 4
    assert grouped(line.power_watts, line.per_package) == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert all(line.memory_total_mib)
    assert line.ranks_mib > 5


def test_on_a_shared_node_only_the_jobs_devices(monkeypatch):
    monkeypatch.setattr(record, "READERS", {"rocm-smi": lambda _: recorded("rocm-smi-6.3-mi250x.json")})
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_STEP_GPUS", "4,5")
    whole = recorded("rocm-smi-6.3-mi250x.json").samples
    _, seen = Devices(replace(TASK, sources=("rocm-smi",), devices=2)).look()
    assert [sample.power_watts for sample in seen.samples] == [whole[4].power_watts, whole[5].power_watts]


def test_a_full_disk_is_one_sentence(work, capfd):
    assert not append(Path("/dev/full"), "{}\n")
    (sentence,) = said(capfd)
    assert "/dev/full cannot be written (No space left on device)" in sentence


def test_a_file_has_an_end(work, capfd, monkeypatch):
    monkeypatch.setattr(record, "MOST_BYTES", 1 << 20)
    path = work / "samples" / "x.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n" * (1 << 20))
    assert not append(path, "{}\n")
    assert path.stat().st_size == 1 << 20
    assert "is full (1 MiB)" in said(capfd)[0]


def test_a_line_after_a_torn_one_is_whole(work):
    path = work / "samples" / "x.jsonl"
    assert append(path, "{}\n")
    path.write_text('{}\n{"time":17')
    assert append(path, "{}\n")
    assert path.read_text() == '{}\n{"time":17\n{}\n'


SCRIPT = """
import os, time
block = bytearray(80 << 20)
block[::4096] = b"x" * len(block[::4096])
for _ in range(2):  # a loader's workers: what they have of this process must not record too
    if os.fork() == 0:
        time.sleep(4)
        os._exit(0)
print("x" * 999, flush=True)
time.sleep(4)
"""


def test_a_real_run_is_recorded(work, monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_SITE", "local")
    (work / "train.py").write_text(SCRIPT)
    run = lumi_moai.submit("train.py", flavor="Medium")
    assert run.wait(seconds=60) == "COMPLETED"
    (path,) = (run.folder.path / "samples").iterdir()
    assert path.name.startswith(f"{run.job_id}-")
    lines = [parse_line(line) for line in path.read_text().splitlines()]
    assert len(lines) >= 3
    assert None not in lines
    last = lines[-1]
    assert (last.start, last.source, last.devices) == ("r0", "processes", (0, 1))
    assert last.power_watts == (None, None), "a process has no sensor"
    assert last.memory_total_mib == (None, None), "nor a memory of its own"
    assert all(80 < used < 1000 for used in last.memory_used_mib)
    assert last.ranks_mib == pytest.approx(sum(last.memory_used_mib), abs=0.2)
    assert last.host_total_mib > last.host_used_mib > 100
    assert last.log == run.log_file(0).name
    assert 1000 < last.log_bytes <= run.log_file(0).stat().st_size
    times = [line.time for line in lines]
    assert all(after - before > 0.9 for before, after in pairwise(times)), "two write at once"


def test_nobody_records_where_nobody_wants_it(work, monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_SITE", "local")
    (work / "train.py").write_text("print('hi')")
    run = lumi_moai.submit("train.py", flavor="Small", env={"LUMI_MOAI_SAMPLE_SECONDS": "0"})
    assert run.wait(seconds=60) == "COMPLETED"
    assert not (run.folder.path / "samples").exists()


PARENT = """
import json, os, subprocess, sys, time
task = {task}
task["parent"] = os.getpid()
child = subprocess.Popen([sys.executable, "-m", "lumi_moai.monitor.record", json.dumps(task)])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_it_outlives_the_signals_of_the_time_limit_and_ends_with_its_rank(work):
    told = {field.name: getattr(TASK, field.name) for field in fields(TASK)}
    task = {**told, "file": str(work / "x.jsonl"), "sources": [], "pids": [], "seconds": 1.0}
    rank = subprocess.Popen([sys.executable, "-c", PARENT.format(task=task)], stdout=subprocess.PIPE, text=True)
    child = int(rank.stdout.readline())
    wait_for((work / "x.jsonl").exists)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        os.kill(child, number)
    size = (work / "x.jsonl").stat().st_size
    wait_for(lambda: (work / "x.jsonl").stat().st_size > size)
    rank.kill()
    rank.communicate()
    wait_for(lambda: ended(child))


def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("spend", "least", "most"), [(time.sleep, 1.0, 1.0), (compute, 5.0, 60.0)])
def test_pauses_grow_with_what_looks_compute_not_with_how_long_they_wait(work, monkeypatch, spend, least, most):
    """A recorder that waited for a core, on a busy node, wrote next to nothing. The kernel counts in ticks of 10 ms."""
    pauses, own = [], record.look
    monkeypatch.setattr(record, "look", lambda *words: spend(0.3) or own(*words))
    monkeypatch.setattr(record, "_lives", lambda _: not pauses)
    monkeypatch.setattr(record, "_sleep", lambda _, seconds: pauses.append(seconds))
    record.record(replace(TASK, file=work / "x.jsonl", seconds=1.0))
    assert least <= pauses[0] <= most


def test_the_recorder_is_no_part_of_the_rank_that_it_records(work):
    told = {field.name: getattr(TASK, field.name) for field in fields(TASK)}
    task = {**told, "file": str(work / "x.jsonl"), "sources": [], "pids": [], "seconds": 1.0}
    rank = subprocess.Popen([sys.executable, "-c", PARENT.format(task=task)], stdout=subprocess.PIPE, text=True)
    try:
        rank.stdout.readline()
        wait_for((work / "x.jsonl").exists)
        (sample,) = record.Ranks((rank.pid,)).look("n1").samples
        status = Path(f"/proc/{rank.pid}/status").read_text()
        alone = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        assert sample.memory_used_mib == pytest.approx(alone, abs=3)
    finally:
        rank.kill()
        rank.communicate()


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(done, seconds=20):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)
