"""What we log is what we read, and MoAI's published lines read as well."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai.step import Step, format_step, parse_step

losses = st.none() | st.floats(allow_nan=False, allow_infinity=False)
seconds = st.none() | st.floats(0, 1e6).map(lambda value: round(value, 3))
rates = st.none() | st.floats(0, 1e9).map(lambda value: round(value, 2))


whole = st.integers(0, 10**9)
units = st.sampled_from(["tokens", "samples"])


@given(st.tuples(whole, st.none() | whole), losses, seconds, rates, units)
def test_a_line_reads_back(numbers, loss, duration, rate, unit):
    number, total = numbers
    step = Step(step=number, total=total, loss=loss, seconds=duration, rate=rate, unit=None if rate is None else unit)
    assert parse_step(format_step(step)) == step
    assert parse_step(f"2024-04-19 18:23:14.630 | INFO | __main__:main:81 - {format_step(step)}\n") == step


@given(st.text())
def test_any_text_is_read_or_left(text):
    parse_step(text)
    parse_step(f"[Step 1/2] {text}")


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (
            "| INFO | main:154 - [Step 10/560] | Loss: 1.8515625 | Duration: 129.06 | Throughput: 4062.49 tokens/sec",
            Step(step=10, total=560, loss=1.8515625, seconds=129.06, rate=4062.49, unit="tokens"),
        ),
        (
            "2024-04-19 18:23:14.630 | INFO | a:main:81 - [Step 1/1660] Loss: 0.9296875 Throughput: 5668.73 tokens/sec",
            Step(step=1, total=1660, loss=0.9296875, rate=5668.73, unit="tokens"),
        ),
        (
            "[Step 3/9] Loss: 0.5, Throughput : 1234.5tokens/sec",
            Step(step=3, total=9, loss=0.5, rate=1234.5, unit="tokens"),
        ),
        (
            "[Step 7] | TPS: 99.50 tokens/sec | Loss: 0.123456 | LR : 0.00001000 | Duration for 1 Step: 0.25 sec",
            Step(step=7, loss=0.123456, seconds=0.25, rate=99.5, unit="tokens"),
        ),
        ("[Step 2/4] | Loss: 1.5 | Duration: 2.00 | 12.00 | Throughput: 1,024.00 tokens/sec",
         Step(step=2, total=4, loss=1.5, seconds=2.0, rate=1024.0, unit="tokens")),
    ],
)  # fmt: skip
def test_moais_lines_of_every_era(line, step):
    assert parse_step(line) == step


def test_a_loss_that_is_no_number_is_seen():
    assert math.isnan(parse_step("[Step 1/2] | Loss: nan").loss)


@pytest.mark.parametrize("line", ["", "Step 1", "[Step x/2] | Loss: 1", "Training Done"])
def test_other_lines_log_no_step(line):
    assert parse_step(line) is None
