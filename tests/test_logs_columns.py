"""Steps read as columns: the same as by patterns, for every format, wherever a log is cut, and many times as fast."""

import io
import os
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_logs import FULL, INDEX, RECORDED

from lumi_moai import logs
from lumi_moai.gather import parts
from lumi_moai.logs import reading, vector
from lumi_moai.logs.digits import WORD, Digits
from lumi_moai.logs.template import Template, Value, learn

MARKS = {b"Traceback": b"Traceback"}


def both(data, monkeypatch=None):
    """What *data* says by patterns and as columns; blocks, which differ, order the notes and tell the clock."""
    long = reading.LONG
    try:
        reading.LONG = 1 << 60
        plain = logs.read(io.BytesIO(data), "x.log")
        reading.LONG = 0
        quick = logs.read(io.BytesIO(data), "x.log")
    finally:
        reading.LONG = long
    return [repr(replace(log, elapsed_seconds=None, notes=dict(sorted(log.notes.items())))) for log in (plain, quick)]


@pytest.mark.parametrize("name", sorted(INDEX))
def test_recorded_logs_many_times_over(name):
    data = (RECORDED / name).read_bytes()
    plain, quick = both((data + b"\n") * max(2, (600 << 10) // len(data)))
    assert plain == quick


CORPUS = b"".join((RECORDED / name).read_bytes() + b"\n" for name in sorted(INDEX) if "barrier" not in name)
STEPS = b"".join(
    b"%s[Step %d/99999] | Loss: %.4f | Duration: %.3f | Throughput: %.2f tokens/sec\n"
    % (b"INFO " * (step % 2), step % 3000, 9 / (step + 1), 1 + step % 7, 1000 + step)
    for step in range(6000)
)
odd_lines = st.lists(
    st.sampled_from([
        b"[Step 5/9] | Loss: nan | Duration: 1.0 | Throughput: 1.0 tokens/sec\n", b"Training Done\n", b"ValueError: no\n",
        b"[Step 5/9] | Loss: 1.5[Step 6/9] | Loss: 1.25\n", b"\x1b[32m[Step 7/9] | Loss: 1.5\x1b[0m\n", b"\r 10%|#| 1/9\r\n",
        b"[Step 8] Model loading duration : 12.34 sec\n", b"\n", b"[Step 8/9] | Loss: 1.5 tokens/sec\n", b"[Step 1/9] Loss: 1e-3\n",
        b"Error Code 4: OUT_OF_MEMORY\n", b"Error Code 5: OUT_OF_MEMORY\n", b"2024-05-01 10:00:00 hello 12\n", b"x" * 3000 + b"\n",
        b"Root Cause (first observed failure):\n[0]:\n  rank      : 3 (local_rank: 3)\n", b"[Step 3/9] Throughput: 7 samples/sec\n",
        b"[Step 12345678901234567890] | Loss: 1\n", b"[Step 3/9] | Loss: 1.12345678901234567 | Duration: 1.0\n", b"[Step 4", b"\xff",
    ]), max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(STEPS)), odd_lines), max_size=6))
def test_odd_lines_among_many_steps(cuts):
    data, at = b"", 0
    for cut, lines in sorted(cuts):
        data += STEPS[at:cut] + b"".join(lines)
        at = cut
    plain, quick = both(data + STEPS[at:])
    assert plain == quick


@settings(deadline=None, max_examples=30)
@given(st.integers(0, len(CORPUS)), st.integers(0, len(CORPUS)), st.binary(max_size=20))
@example(0, 502659, b"")  # a rank's label in front of one step line alone
def test_any_part_of_all_formats(begin, end, noise):
    plain, quick = both(STEPS[:20_000] + CORPUS[begin:end] + noise + CORPUS[end : end + 300] + STEPS[:20_000])
    assert plain == quick


digits = st.integers(1, 7).flatmap(lambda width: st.text("0123456789", min_size=width, max_size=width))
numbers = st.one_of(digits, st.builds("{}.{}".format, digits, digits))
noted = st.sampled_from([
    "[info] Moreh Version: 24.{}.0", "[info] [1/{}] Connecting to resources", "seq_length ...... {}", "Peak GPU Memory (MB)={}",
    "Memory used: {} GB", "Eval Loss: {} [Step 9/9] | Loss: 7.5", "rank {}: ValueError: {}", "epoch {} of {}", "it {}, {}",
    "lumi-moai: [Step {}] | Duration: {} | Throughput: {} tokens/sec | Memory: {} GiB", "step: {} loss: {} memory: {}GiB",
])  # fmt: skip
stepped = st.sampled_from([
    "[Step {}/99] | Loss: {} | Duration: {} | Throughput: {} tokens/sec", "[Step {0}] Loss: {1}", "{3} [Step {0}/9] Loss: {1}",
    "[Step {0}] | TPS: {3} tokens/sec | Loss: {1} | LR : {2} | Duration for 1 Step: {2} sec", "[Step {0}/9] Throughput : {3}tokens/sec",
])  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.one_of(stepped, stepped, noted), st.tuples(digits, *[numbers] * 3), st.integers(1, 40)),
        max_size=30,
    )
)
def test_any_shapes_of_any_length(kinds):
    """Numbers of all widths, so that lines of one length have many shapes; small blocks, so that lines are cut often."""
    many = [line.format(*said) + "\n" for line, said, count in kinds for _ in range(count)]
    data = STEPS[:3000] + "".join(many[::2] + many[1::2]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", 2000)
        patch.setattr(reading, "LARGE", 20_000)
        patch.setattr(vector, "_AT_ONCE", 4000)
        plain, quick = both(data)
    assert plain == quick


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 15), st.integers(0, 14)), min_size=1, max_size=4), st.data()
)
def test_digits_at_fixed_places(places, data):
    values, text = [], ""
    for ahead, width, most in places:
        decimals = min(most, width - 1)
        begin = len(text) + ahead
        text += "x" * ahead + "0" * (width - decimals) + "." * bool(decimals) + "0" * decimals
        values.append(Value("loss", begin, len(text), decimals))
        text += " "
    lines = [
        "".join(data.draw(st.sampled_from("0123456789")) if each == "0" else each for each in text) for _ in range(3)
    ]
    rows = np.frombuffer("".join("7" * WORD + line for line in lines).encode(), np.uint8).reshape(3, -1)
    wanted = [[int(line[v.begin : v.end].replace(".", "")) for line in lines] for v in values]
    assert [found.tolist() for found in Digits(values).of(rows)] == wanted


def test_the_last_of_many_lines_with_a_note_counts():
    said = b"".join(
        b"[info] Moreh Version: 24.%d.0\nPeak GPU Memory (MB)=%d\n" % (n % 10, 5000 - n) for n in range(900)
    )
    plain, quick = both(STEPS + said + STEPS)
    assert plain == quick
    assert "24.9.0" in quick
    assert "5000" in quick


def test_what_a_shape_is():
    line = FULL.strip() % (12, 1.5, 1.0, 1000.0)
    moai = logs.FORMATS[0]
    found = learn(line, moai, MARKS)
    assert [value.column for value in found.values] == ["step", "total", "loss", "seconds", "rate"]
    assert learn(b"nothing to see", moai, MARKS) == Template()
    assert learn(b"Traceback", moai, MARKS) == Template(patterns=True, hints=(b"Traceback",))
    assert learn(b"Traceback", moai, MARKS, last=MARKS).last
    assert not learn(b"[Step 1] Traceback", moai, MARKS, last=MARKS).last
    assert learn(b"Traceback {1}", moai, MARKS, (b"{1",), MARKS) == Template(patterns=True, hints=(b"Traceback", b"{1"))
    assert learn(b"[Step 1] nothing", moai, MARKS).patterns
    assert learn(line + line, moai, MARKS).patterns


def test_a_number_that_ends_in_a_point():
    line = b"[Step %d/9999] | Loss: 5. | Duration: 1.5 | Throughput: 7.5 tokens/sec\n"
    plain, quick = both(b"".join(line % step for step in range(9000)))
    assert plain == quick


def test_a_long_log_is_read_as_columns(monkeypatch):
    """That the quick way is taken at all: patterns see a hundredth of the lines."""
    seen = []
    moai = logs.FORMATS[0]
    watched = replace(moai, rows=lambda block: seen.append(block.count(b"\n")) or moai.rows(block))
    monkeypatch.setattr(reading, "LONG", 0)
    log = logs.read(io.BytesIO(STEPS * 10), "x.log", [watched])
    assert log.records == 60_000
    assert sum(seen) < 6_000


@pytest.fixture(scope="module")
def small_parts():
    """Parts of some KB, and three processes, whatever the machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PROBE", 2000)
        patch.setattr(parts, "PART", 4000)
        patch.setattr(parts, "_NEAR", 2000)
        patch.setattr(parts, "cores", lambda: 3)
        patch.setattr(reading, "LONG", 0)
        yield


def without_warm_up(lines):
    """A warm-up that is told later than in the first MB counts for its own part only."""
    return [line for line in lines if b"oading" not in line]


def in_parts(data):
    with tempfile.NamedTemporaryFile(buffering=0) as file:
        file.write(data)
        return parts.read_parts(file, len(data), "x.log", logs.FORMATS)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 60_000), odd_lines.map(without_warm_up)), max_size=4))
def test_a_log_in_parts_is_the_log(small_parts, cuts):
    data, at = b"", 0
    for cut, lines in sorted(cuts):
        data += STEPS[at:cut] + b"".join(lines)
        at = cut
    data += STEPS[at:60_000]
    whole = logs.read(io.BytesIO(data), "x.log")
    assert repr(replace(in_parts(data), elapsed_seconds=None)) == repr(replace(whole, elapsed_seconds=None))


def test_a_step_that_says_nothing_ahead_of_one_on_the_same_line():
    glued = b"[Step 238/99999][Step 5/9] | Loss: 2.5 | Duration: 1.0 | Throughput: 1.0 tokens/sec\n"
    plain, quick = both(STEPS + glued * 20)
    assert plain == quick


@pytest.mark.parametrize("requeued", [False, True])
def test_parts_know_the_epoch_ahead_of_them(small_parts, requeued):
    line = b"Train: %d [%4d/40 ( 10%%)]  Loss: %.4f (9.9)  Time: 0.5s,  100.0/s  (0.6s,  90.0/s)\n"
    lines = [line % (epoch, step, 9 / (epoch + step + 1)) for epoch in range(60) for step in range(0, 40, 2)]
    data = b"".join(lines + lines[900:] if requeued else lines)
    whole = logs.read(io.BytesIO(data), "x.log")
    assert (whole.restarts, whole.new_epochs) == ((1, 73) if requeued else (0, 59))
    assert repr(in_parts(data)) == repr(whole)


def test_parts_behind_a_beginning_without_a_rate_agree_on_its_unit(small_parts):
    data = b"[Step 5/9] | Loss: 1.5\n" * 200 + b"[Step 3/9] Throughput: 7 samples/sec\n" + STEPS[:60_000]
    whole = logs.read(io.BytesIO(data), "x.log")
    assert whole.throughput is None
    assert whole == in_parts(data)
    assert in_parts(data[:4600] + STEPS).throughput.unit == "tokens_per_second"


def test_the_evidence_of_a_later_part_has_its_line(small_parts):
    end = b"slurmstepd: error: *** JOB 9 ON n CANCELLED AT 2024-05-20T16:13:38 DUE TO TIME LIMIT ***\n"
    net = b"NCCL INFO NET/Plugin : No plugin found (librccl-net.so), using internal implementation\n"
    log = in_parts(STEPS + net + end)
    assert log.evidence.place == f"x.log:{6000 + 2}"
    assert log.remarks[0].place == f"x.log:{6000 + 1}"
    assert (log.restarts, log.records) == (1, 6000)


def test_a_part_whose_process_died_is_read_again(small_parts, monkeypatch):
    monkeypatch.setattr(parts, "apart", lambda work: lambda: None)
    assert in_parts(STEPS) == logs.read(io.BytesIO(STEPS), "x.log")


def test_a_process_that_dies_gives_nothing():
    assert parts.apart(lambda: 7)() == 7
    assert parts.apart(lambda: os.kill(os.getpid(), 9))() is None
