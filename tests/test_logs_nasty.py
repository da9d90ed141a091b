"""The nasty truth of other people's logs, each thing with its test."""

import gzip
import io
import math
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_logs import CORPUS, Zeros

from lumi_moai import logs
from lumi_moai.gather.files import read_log

LINE = "[Step {step}/9] | Loss: {loss} | Duration: {seconds} | Throughput: {rate} tokens/sec\n"
NEMO = " iteration {step}/ 20 | elapsed time per iteration (ms): {ms} | lm loss: {loss} |\n"


def line(step, loss="2.5", seconds="1.0", rate="100.0"):
    return LINE.format(step=step, loss=loss, seconds=seconds, rate=rate)


def read(text):
    return logs.read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "x.log")


def test_labels_of_srun_with_ranks_that_say_the_same_and_overtake_each_other():
    order = [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3), (0, 4), (1, 4)]
    log = read("".join(f"{rank}: {line(step, rate=100.0 + step)}" for rank, step in order))
    assert (log.records, log.restarts, log.first_step, log.last_step) == (8, 0, 1, 4)
    assert (log.throughput.median, log.steady_records) == (103.0, 3)
    assert log.notes["ranks_logged"] == 2


def test_a_restart_of_ranks_with_labels_is_one():
    log = read("".join(f" {rank}: {line(step)}" for step in (1, 2, 3, 2, 3, 4) for rank in (0, 1, 10)))
    assert (log.records, log.restarts, log.last_step, log.max_step) == (18, 1, 4, 4)


def test_a_label_is_no_part_of_a_number():
    assert [step.step for step in logs.records(io.BytesIO(("12: " + line(3)).encode()))] == [3]


def test_one_rank_with_labels():
    log = read("".join(f"3: {line(step)}" for step in (1, 2, 3)))
    assert (log.records, log.restarts) == (3, 0)
    assert "ranks_logged" not in log.notes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\x1b[32m", "\x1b[0m"),
        ("\r", "\r"),
        ("\r 40%|####      | 4/9 [00:02<00:02,  2.2it/s]\r\x1b[A", ""),
        ("\x1b]0;title\x07", ""),
    ],
)
def test_colours_and_carriage_returns(before, after):
    log = read("".join(f"{before}{line(step).strip()}{after}\n" for step in (1, 2, 3)))
    assert (log.records, log.last_step, log.loss_last) == (3, 3, 2.5)


def test_windows_line_ends():
    assert read("".join(line(step).replace("\n", "\r\n") for step in (1, 2, 3))).records == 3


@pytest.mark.parametrize("cut", range(1, len(line(4))))
def test_a_torn_last_line(cut):
    lines = "".join(line(step, loss="2.52") for step in (1, 2, 3)) + line(4, loss="7.25", rate="987.5")
    log = read(lines[: -cut or None])
    assert log.loss_last in (2.52, 7.25)
    assert log.throughput.p90 <= 987.5
    assert log.last_step in (3, 4)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nan", None),
        ("NaN", None),
        ("NAN", None),
        ("INF", math.inf),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("1.5e+01", 15),
        ("1,234.5", 1234.5),
        ("1.5K", 1500),
    ],
)
def test_numbers_in_every_writing(text, value):
    log = read("".join(NEMO.format(step=step, ms="500.0", loss=text) for step in (1, 2)))
    assert log.records == 2
    assert log.loss_last == value or (value is None and math.isnan(log.loss_last) and log.nan_steps == 2)


def test_suffixes_and_milliseconds():
    text = "iteration: {} / 9 | elapsed_time_per_iteration_ms: 11.5K | tokens_per_sec: 1.25M | lm_loss: 2.5 |\n"
    log = read("".join(text.format(step) for step in (1, 2, 3)))
    assert (log.step_seconds, log.throughput.median) == (11.5, 1.25e6)


def test_several_runs_in_one_file():
    log = read(
        "".join(line(step) for step in (1, 2, 3)) + "sbatch: again\n" + "".join(line(step) for step in (1, 2, 3, 4))
    )
    assert (log.records, log.restarts, log.last_step, log.max_step, log.steady_records) == (7, 1, 4, 4, 5)


def test_two_formats_in_one_file_the_one_with_more_steps_counts():
    short = "".join(f"step={step} loss=9.5 dt=1.0\n" for step in (1, 2))
    long = "".join(NEMO.format(step=step, ms="500.0", loss="2.5") for step in range(1, 9))
    for text in (short + long, long + short):
        log = read(text)
        assert (log.format, log.records, log.loss_last, log.restarts) == ("megatron", 8, 2.5, 0)
        assert log.notes["other_formats"] == "key=value: 2"


def test_the_first_step_compiles():
    log = read(line(1, seconds="300.0", rate="3.0") + "".join(line(step) for step in (2, 3, 4)))
    assert (log.first_seconds, log.first_rate, log.step_seconds, log.throughput.median) == (300, 3, 1, 100)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 5000, bytes(range(256)) * 50, b"\xff\xfe", b"\x1f\x8b", b"\n" * 9, b"\x1b" * 99, b"\xed\xa0\x80"],
)
def test_no_bytes_are_too_odd(work, data):
    assert read(data).records == 0


def test_a_log_that_grows_while_it_is_read(work):
    path = work / "x.log"
    path.write_text("".join(line(step) for step in range(1, 1000)))

    def write():
        with open(path, "a") as file:
            for step in range(1000, 3000):
                file.write(line(step))
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    counts = [read_log(path).records for _ in range(5)]
    writer.join()
    assert counts == sorted(counts)
    assert counts[0] >= 999
    assert read_log(path).records == 2999


def test_a_log_that_is_cut_short_while_it_is_read(work):
    path = work / "x.log"
    path.write_text("".join(line(step) for step in range(1, 9000)))

    class Shrinking(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            path.write_text("")
            return data

    with Shrinking(path) as file:
        assert logs.read(file, "x").records > 0


def test_a_line_of_10_gb_is_passed_over_in_time_that_its_length_allows():
    begun = time.process_time()
    logs.read(Zeros(300 << 20), "x")
    assert (time.process_time() - begun) * 10_000 / 300 < 100
    tail = b"y" * (3 << 20) + b"slurmstepd: error: Detected 1 oom_kill event in StepId=9.0.\n"
    assert read(line(1).encode() + tail + line(2).encode()).evidence.cause == "host_out_of_memory"
    assert read(line(1).encode() + tail + line(2).encode()).records == 2


@settings(deadline=None, max_examples=40)
@given(st.integers(0, len(CORPUS)), st.integers(0, 4000), st.sampled_from(["utf-8", "utf-16", "gzip"]))
def test_any_log_cut_at_any_byte_and_packed_gives_a_report(tmp_path_factory, begin, size, packing):
    from lumi_moai.gather.runs import collect

    data = CORPUS[begin : begin + size]
    packed = {"utf-8": data, "utf-16": data.decode(errors="replace").encode("utf-16"), "gzip": gzip.compress(data)}
    path = tmp_path_factory.mktemp("cut") / "x.log"
    path.write_bytes(packed[packing])
    assert collect([str(path)]).outcome


def test_the_bar_of_an_evaluation_in_between_is_another_loop():
    bar = "\r {0}%|##  | {0}/{1} [00:10<01:00,  2.00s/it]"
    bars = [*((n, 100) for n in range(1, 50)), *((n, 9) for n in range(1, 10)), *((n, 100) for n in range(50, 101))]
    log = read("".join(bar.format(*each) for each in bars))
    assert (log.format, log.records, log.restarts, log.total_steps) == ("tqdm", 100, 0, 100)


def test_steps_with_separators_of_thousands_and_those_of_an_evaluation():
    text = "".join(f"step {n:,} loss 2.5\neval step {n % 3} loss 9.9\n" for n in range(998, 1006))
    log = read(text)
    assert (log.records, log.first_step, log.last_step, log.loss_last, log.restarts) == (8, 998, 1005, 2.5, 0)
