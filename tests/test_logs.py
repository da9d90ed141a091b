"""Logs: recorded ones against what a correct reader extracts, every shape of step line, and any bytes at all."""

import csv
import io
import math
import statistics
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumi_moai import logs
from lumi_moai.logs.blocks import BLOCK, LONGEST, blocks
from lumi_moai.logs.quantile import EXACT, Quantiles
from lumi_moai.step import Step, format_step, parse_step

RECORDED = Path(__file__).parent / "recorded" / "logs"
INDEX = {row["file"]: row for row in csv.DictReader((RECORDED / "INDEX.csv").read_text().splitlines())}
NEW_EPOCHS = ("swin/astro_regression_cancelled.log", "timm/resnet50_toy.log", "timm/hpu_resnet50.log")
"""Their steps go back because the next epoch begins, never because of a restart."""
FULL = b"[Step %d/99] | Loss: %.4f | Duration: %.3f | Throughput: %.2f tokens/sec\n"


def read(data):
    return logs.read(io.BytesIO(data if isinstance(data, bytes) else data.encode()), "x.log")


def steps_of(data):
    return list(logs.records(io.BytesIO(data if isinstance(data, bytes) else data.encode())))


def number(cell, kind=float):
    return kind(cell) if cell else None


@pytest.mark.parametrize("name", sorted(INDEX))
def test_recorded_log(name):
    expected = INDEX[name]
    data = (RECORDED / name).read_bytes()
    log, steps = read(data), steps_of(data)
    assert log.records == len(steps) == int(expected["n_step_records"])
    assert log.first_step == number(expected["first_step"], int)
    assert log.last_step == number(expected["last_step"], int)
    assert log.max_step == number(expected["max_step"], int)
    numbers = [step.step for step in steps if step.step is not None]
    assert sum(after < before for before, after in pairwise(numbers)) == int(expected["step_goes_back"])
    assert log.restarts == (0 if name in NEW_EPOCHS else int(expected["step_goes_back"]))
    assert log.loss_last == pytest.approx(number(expected["last_loss"]), nan_ok=True)
    assert len([step for step in steps if step.loss is not None]) == int(expected["n_records_with_loss"])
    rates = [step.rate for step in steps if step.rate is not None]
    if "it/s" in expected["throughput_unit"]:  # steps a second, which we give as the time of a step
        rate = 1 / statistics.median(step.seconds for step in steps)
        assert rate == pytest.approx(float(expected["median_throughput"]), rel=1e-6)
        return
    assert len(rates) == int(expected["n_records_with_throughput"])
    if rates:  # the index takes the first step in, our throughput leaves it out
        assert statistics.median(rates) == pytest.approx(float(expected["median_throughput"]), rel=1e-6)
        unit = "tokens" if expected["throughput_unit"].startswith("tokens") else "samples"
        assert {step.unit for step in steps if step.rate is not None} == {unit}
    if expected["format"] == "moai" and rates:
        assert log.throughput.unit == "tokens_per_second"
        assert log.steady_records == len(rates) - 1 - log.restarts
    seconds = [step.seconds for step in steps if step.seconds is not None]
    if expected["median_step_time"] and "interval" not in expected["step_time_unit"]:
        factor = 1e-3 if "ms" in expected["step_time_unit"] else 1
        assert statistics.median(seconds) == pytest.approx(float(expected["median_step_time"]) * factor, rel=1e-4)


FIGURES = {
    "[rank0]: step: 10  loss:  1.23890  grad_norm:  0.0498  memory: 21.78GiB(69.44%)  tps: 3,322  tflops: 24.96  mfu: 8.00%": (
        24.96, 0.08, 21.78),
    "step: 10  loss:  1.2  memory: 21.78GiB(69.44%)  tps: 3,322  tflops: 24.96  mfu: N/A": (24.96, None, 21.78),
    "iter 50: loss 4.0863, time 561.94ms, mfu 30.10%": (None, 0.301, None),
    "iter 50: loss 4.0863, time 561.94ms, mfu -100.00%": (None, None, None),
    " iteration 10/ 20 | elapsed time per iteration (ms): 4.5 | mem usages: 0.44 | throughput per GPU (TFLOP/s/GPU): 233.3 |"
    " lm loss: 1.09E+01 |": (233.3, None, None),
    " iteration 10/ 20 | elapsed time per iteration (ms): 4.5 | lm loss: 1.09E+01 | TFLOPs: 13.5 |": (13.5, None, None),
    " samples/sec: 1.3 | iteration 10/ 110 | elapsed time per iteration (ms): 752.9 | approx flops per GPU: 4.3TFLOPS |"
    " lm_loss: 1.1E+01 |": (4.3, None, None),
    "completed step: 9, seconds: 5.667, TFLOP/s/device: 134.924, Tokens/s/device: 8672.758, loss: 10.374": (
        134.924, None, None),
    "iteration: 991 / 1000 | elapsed_time_per_iteration_ms: 45 | tokens_per_sec: 14.2K | lm_loss: 10.6 |"
    " model_tflops_per_gpu: 86.9 | hardware_tflops_per_gpu: 99": (86.9, None, None),
    "global_step=10, RunningAvgSamplesPerSec=1, CurrSamplesPerSec=2, MemAllocated=3.96GB, MaxMemAllocated=7.5GB": (
        None, None, 7.5),
    "eta: 0:14:11  iter: 19  total_loss: 76.49  time: 0.4365  max_mem: 10240M": (None, None, 10.0),
    "Epoch [3][50/1749]\tlr: 2.000e-02, eta: 0:52:33, time: 1.899, data_time: 0.046, memory: 5120, loss: 2.1": (
        None, None, 5.0),
    "Train: [0/150][64/1250]  eta 4:33:26 lr 0.000014  Time 22.0 (13.8)  loss 0.0667 (0.0745) mem 2560MB": (
        None, None, 2.5),
    "Epoch: [0]  [ 10/128]  eta: 0:02:08  loss: 55.7 (56.1)  time: 0.5601  data: 0.0091  max mem: 5120": (
        None, None, 5.0),
    "lumi-moai: [Step 10] | Duration: 0.412 | Throughput: 79612.00 tokens/sec | Memory: 12.31 GiB | MFU: 34.1 %": (
        None, 0.341, 12.31),
    "[Step 10/20] | Loss: 1.5 | Duration: 1.0 | Throughput: 5.0 tokens/sec": (None, None, None),
}  # fmt: skip


@pytest.mark.parametrize("line", FIGURES)
def test_what_a_device_reached(line):
    log = read(f"{line}\n{line}\n")
    assert log.records == 2
    assert (log.tflops, log.mfu, log.memory_gib) == pytest.approx(FIGURES[line])


JSON_LINES = {
    '{"step": 10, "loss": 2.31, "tokens_per_second": 51234.5, "step_time": 0.4}': Step(
        step=10, loss=2.31, seconds=0.4, rate=51234.5, unit="tokens"
    ),
    '{"event": "train", "global_step": 20, "train/loss": 2.25, "samples/sec": 12}': Step(
        step=20, loss=2.25, rate=12.0, unit="samples"
    ),
    '  {"iteration": 3, "loss": NaN, "step_time_ms": 500}': Step(step=3, loss=math.nan, seconds=0.5),
    '{"step": 10, "eval_loss": 2.31}': None,
    '{"step": true, "loss": 2}': None,
    '{"step": 1.5, "loss": 2}': None,
    '{"step": Infinity, "loss": 2}': None,
    '{"step": 5, "loss": {"a": 1}}': None,
    '{"step": 5, "loss": 1': None,
    '[{"step": 5, "loss": 1}]': None,
    '{"step": 1e400, "loss": 1}': None,
    '{"step": 7, "loss": 1' + "0" * 400 + "}": None,
}


@pytest.mark.parametrize("line", JSON_LINES)
def test_lines_of_json(line):
    assert repr(steps_of(line + "\n")) == repr([JSON_LINES[line]] if JSON_LINES[line] else [])


def test_the_steady_state_leaves_the_first_record_out():
    lines = [FULL % (step, 1.0, 1.0, 5.0 if step == 1 else 100.0 * step) for step in range(1, 13)]
    rate = read(b"".join(lines)).throughput
    assert (rate.p10, rate.median, rate.p90) == pytest.approx((300, 700, 1100))


MEGATRON = " iteration {}/ 20 | elapsed time per iteration (ms): 500.0 | lm loss: 1.09E+01 |\n"


def test_samples_become_tokens_only_where_the_log_says_how_many():
    args = "  seq_length ...................................... 2048\n  global_batch_size ......... 8\n"
    steps = "".join(MEGATRON.format(step) for step in range(1, 5))
    assert read(args + steps).tokens_per_second.median == 2048 * 8 / 0.5
    assert read(args[: args.index("  global")] + steps).tokens_per_second is None
    assert read(steps).tokens_per_second is None
    samples = "".join(f"[Step {n}] | Duration: 1.0 | Throughput: 4.0 samples/sec\n" for n in range(1, 5))
    log = read(args + samples)
    assert (log.throughput.unit, log.throughput.median) == ("samples_per_second", 4)
    assert (log.tokens_per_second.unit, log.tokens_per_second.median) == ("tokens_per_second", 4 * 2048)
    assert read(samples).tokens_per_second is None
    nano = "tokens per iteration will be: 491,520\n" + "".join(
        f"iter {n}: loss 4.0, time 500.0ms, mfu 3%\n" for n in range(4)
    )
    assert read(nano).tokens_per_second.median == 983040


def test_the_first_step_stands_apart():
    log = read((RECORDED / "moai/baichuan2_throughput_only.log").read_bytes())
    assert log.first_rate == 590.2552103757937
    assert log.throughput.median == pytest.approx(191455.195)
    assert (log.total_steps, log.loss_last) == (104, None)


def test_the_platform_of_a_recorded_log():
    notes = read((RECORDED / "moai/llama2_32gpu.log").read_bytes()).notes
    assert (notes["platform_version"], notes["platform_job_id"], notes["platform_nodes"]) == ("24.5.0", "977792", 8)
    assert notes["parallelism"].startswith("No PP, No TP, recomputation : default(1)")


SHAPES = {
    "[Step 4/15] Loss: 1.828125": Step(step=4, total=15, loss=1.828125),
    "|INFO     | __main__:main:151 - [Step 2/15] Loss: 1.6484375": Step(step=2, total=15, loss=1.6484375),
    "[Step 0/6644] Loss: 0.96 Throughput: 1134.75 tokens/sec": Step(
        step=0, total=6644, loss=0.96, rate=1134.75, unit="tokens"
    ),
    "[Step 1/104] Loss: 1.5, Throughput : 590.2552103757937tokens/sec": Step(
        step=1, total=104, loss=1.5, rate=590.2552103757937, unit="tokens"
    ),
    "[Step 1/104] Throughput : 590.25tokens/sec": Step(step=1, total=104, rate=590.25, unit="tokens"),
    "[Step 2/560] | Loss: 1.85 | Duration: 3.62 | Throughput: 144909.28 tokens/sec": Step(
        step=2, total=560, loss=1.85, seconds=3.62, rate=144909.28, unit="tokens"
    ),
    # The duration of the next one is that of ten steps.
    "[Step 10/1121] | Loss: 1.85 | Duration: 77.31 | 29.80 | Throughput: 30517.43 tokens/sec": Step(
        step=10, total=1121, loss=1.85, rate=30517.43, unit="tokens"
    ),
    "[Step 10] | TPS: 30517.43 tokens/sec | Loss: 1.85 | LR : 0.00001 | Duration for 1 Step: 8.59 sec": Step(
        step=10, loss=1.85, seconds=8.59, rate=30517.43, unit="tokens"
    ),
    "{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.1, 'step': 10, 'tps': 3e4, 'duration': 8.6}": Step(
        step=10, loss=1.25, rate=3e4, unit="tokens"
    ),
    "[Step 3/9] | Loss: nan | Duration: 1.0 | Throughput: 1,234.5 samples/sec": Step(
        step=3, total=9, loss=math.nan, seconds=1.0, rate=1234.5, unit="samples"
    ),
    "17: [Step 3/9] | Loss: 1e-3": Step(step=3, total=9, loss=0.001),
    "[Step 1] Model loading duration : 12.34 sec": None,
    "EVAL STEP: 10 / 20": None,
    "[Step 4/15] | Lo": None,
    "[Step 4/15]": None,
    "[Step 4/15][Step 5/15] Loss: 1.5": Step(step=5, total=15, loss=1.5),
    "[Step ]": None,
    "Eval Loss: 1.5 | ELAPSED EVAL TIME: 3.2 sec": None,
    "f'[Step {step}/{total}] | Loss: {loss}'": None,
    "[Step 99999999999999999999999999] Loss: 1": None,
    "{'warmup_duration': 12.3}": None,
    "{'train_runtime': 12.3, 'tps': 4}": None,
}


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\r", "\x1b[0m\n"])
@pytest.mark.parametrize("line", SHAPES)
def test_every_shape(line, ending):
    expected = SHAPES[line]
    found = steps_of(line + ending)
    assert repr(found) == repr([expected] if expected else [])


def test_a_warm_up_told_apart_leaves_no_first_record_out():
    log = read(
        "2024-06-25 10:00:00.000 | INFO | Model load and warmup done. Duration: 321.50\n"
        "2024-06-25 10:01:00.000 | INFO | [Step 10/99] | Loss: 2.0 | Duration: 9.0 | 1.00 | Throughput: 100.00 tokens/sec\n"
        "2024-06-25 10:02:30.500 | INFO | [Step 20/99] | Loss: 1.0 | Duration: 9.0 | 1.00 | Throughput: 300.00 tokens/sec\n"
    )
    assert (log.throughput.median, log.steady_records, log.first_rate) == (200, 2, None)
    assert log.notes["warmup_seconds"] == 321.5
    assert log.elapsed_seconds == 150.5
    assert log.step_seconds is None


def test_the_closing_summary():
    notes = read(
        "[Step 1] Model loading duration : 61.25 sec\n[Step 2] | TPS: 5.0 tokens/sec | Loss: 1.0 | Duration for 1 Step: 2 sec\n"
        "\n          Performance Summary           \n" + "=" * 50 + "\n"
        f"{'Total Duration:':<30} 100.50 seconds\n{'  Model Loading Duration:':<30} 60.00 seconds\n"
        f"{'  Train Duration:':<30} 30.00 seconds\n{'  Evaluation Duration:':<30} 10.50 seconds\n"
        f"{'Total Estimated Duration:':<30} 1:02:03 for 3 epochs\n{'Avg TPS:':<30} 5123.10 tps\nEval Loss: 1.75 | ELAPSED\n"
    )
    assert notes.evidence.outcome == "completed"
    assert notes.notes == {
        "warmup_seconds": 60.0, "total_seconds": 100.5, "train_seconds": 30.0, "eval_seconds": 10.5,
        "average_tokens_per_second": 5123.1, "eval_loss": 1.75,
    }  # fmt: skip


def test_a_step_that_goes_back_is_another_run():
    runs = [[1, 2, 3, 4], [3, 4, 5], [1, 2]]
    lines = [
        FULL % (step, 1 / (step + run), 1.0, 1000 * run + step) for run, steps in enumerate(runs) for step in steps
    ]
    log = read(b"".join(lines))
    assert (log.records, log.restarts, log.first_step, log.last_step, log.max_step) == (9, 2, 1, 2, 5)
    assert log.steady_records == 6
    assert log.throughput.median == statistics.median([2, 3, 4, 1004, 1005, 2002])


def test_not_a_number():
    log = read("".join(f"[Step {step}] Loss: {loss}\n" for step, loss in enumerate(["2.5", "nan", "1.5", "nan"])))
    assert (log.loss_first, log.loss_min, log.nan_steps) == (2.5, 1.5, 2)
    assert math.isnan(log.loss_last)


def test_two_units_are_not_mixed():
    log = read(
        "".join(f"[Step {n}] Throughput: {100 + n} {unit}/sec\n" for n, unit in enumerate(["tokens", "samples"] * 3))
    )
    assert (log.throughput.unit, log.throughput.median, log.steady_records) == ("tokens_per_second", 103, 2)


def test_colours_and_carriage_returns_do_not_hide_steps():
    bar = b"\r 10%|#    | 1/9\r\x1b[A\x1b[32m" + (FULL % (1, 2.0, 1.0, 10.0)).strip() + b"\x1b[0m\r 20%|##"
    assert steps_of(bar) == [Step(step=1, total=99, loss=2.0, seconds=1.0, rate=10.0, unit="tokens")]


def test_glued_lines_do_not_lend_each_other_values():
    first, second = steps_of("[Step 1/9] Throughput: 5 tokens/sec[Step 2/9] Loss: 3.0\n")
    assert first == Step(step=1, total=9, rate=5.0, unit="tokens")
    assert second == Step(step=2, total=9, loss=3.0)
    assert len(steps_of((FULL % (1, 1.0, 1.0, 1.0)).strip() + FULL % (2, 1.0, 1.0, 1.0))) == 2


steps = st.builds(
    Step,
    step=st.integers(0, 10**9),
    total=st.none() | st.integers(0, 10**9),
    loss=st.floats(allow_infinity=False),
    seconds=st.none() | st.floats(0.001, 1e5).map(lambda x: round(x, 3)),
    rate=st.none() | st.floats(0.01, 1e9).map(lambda x: round(x, 2)),
    unit=st.just("tokens"),
)


@given(st.lists(steps))
def test_what_we_write_we_read(written):
    text = "".join(format_step(step) + "\n" for step in written)
    assert repr(steps_of(text)) == repr([parse_step(format_step(step)) for step in written])


CORPUS = b"".join((RECORDED / name).read_bytes() for name in sorted(INDEX) if "barrier" not in name)


@settings(deadline=None)  # a megabyte of every format there is takes its time
@given(st.integers(0, len(CORPUS)), st.integers(0, len(CORPUS)), st.binary(max_size=20))
def test_a_log_cut_anywhere_is_a_log(begin, end, noise):
    log = read(CORPUS[begin:end] + noise + CORPUS[end : end + 300])
    assert log.records >= log.steady_records >= 0


@given(st.binary() | st.lists(st.sampled_from([b"[Step ", b"1", b"/", b"]", b" | Loss: ", b"nan", b"e9", b"\n", b"\r", b"\x1b[",
       b"'tps': ", b"{", b"}", b"rror: ", b"2024-13-45 10:00:00", b"\xff", b" tokens/sec", b": ", b"Traceback"])).map(b"".join))  # fmt: skip
def test_any_bytes_are_a_log(data):
    log = read(data)
    assert log.records == len(steps_of(data))


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_lose_nothing_and_number_lines(size):
    data = (b"0123456789abcdef\n" * (size // 17 + 1))[:size]
    parts = list(blocks(io.BytesIO(data)))
    assert b"".join(part.text for part in parts) == data
    assert parts[-1].line + parts[-1].text.count(b"\n") == 1 + data.count(b"\n")


class Zeros(io.RawIOBase):
    """A file of one endless line, so that the test needs no disk."""

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return b"x" * size


def test_a_line_of_100_mb_is_not_kept():
    tracemalloc.start()
    log = logs.read(Zeros(100 << 20), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert log.records == 0
    assert peak < 8 * LONGEST


def test_a_long_log_is_not_kept():
    lines = b"".join(FULL % (step, 1.0, 1.0, 1000.0 + step % 7) for step in range(50_000))
    tracemalloc.start()
    log = read(lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert log.records == 50_000
    assert peak < 12 << 20


def test_a_note_on_a_line_of_its_own():
    assert read(b"done\nMemory used: 3.5 GB\n").notes == {"memory_gb": 3.5}


def test_the_planned_steps_are_those_of_the_last_line_that_says_them():
    assert (
        read(FULL % (7, 1.0, 1.0, 5.0) + b"[Step 8] Loss: 1.5\n").total_steps
        == read(FULL % (7, 1.0, 1.0, 5.0)).total_steps
    )


def test_a_step_line_across_blocks():
    lead = b"x" * (BLOCK - 20) + b"\n"
    assert read(lead + FULL % (7, 1.0, 1.0, 5.0)).last_step == 7


@given(st.lists(st.floats(1e-6, 1e9), min_size=1))
def test_few_values_have_an_exact_median(values):
    found = Quantiles()
    found.add(values)
    assert found.median() == pytest.approx(statistics.median(values))


def test_many_values_have_a_median_within_its_error():
    found = Quantiles()
    values = [1000 + (n * 7919 % 100_003) / 10 for n in range(EXACT + EXACT // 2)]
    for begin in range(0, len(values), 50_000):
        found.add(values[begin : begin + 50_000])
    assert len(found) == len(values)
    assert found.median() == pytest.approx(statistics.median(values), rel=0.0003)
    assert (found.at(0), found.at(1)) == (min(values), pytest.approx(max(values), rel=0.0003))


def test_what_is_no_rate_is_not_counted():
    found = Quantiles()
    found.add([0.0, -1.0, math.nan, math.inf])
    assert (len(found), found.median()) == (0, None)
    found.add([2.0, math.nan])
    assert found.median() == 2.0


def test_a_duration_of_lines_ten_steps_apart_is_no_step_time():
    assert read(b"".join(FULL % (step, 1.0, 2.0, 9.0) for step in (10, 20, 30, 40))).step_seconds is None
    assert read(b"".join(FULL % (step, 1.0, 2.0, 9.0) for step in (1, 2, 3, 4))).step_seconds == 2.0
