"""Series of a log: thinned without losing a spike, split at restarts, in bounded memory."""

import io

from hypothesis import given
from hypothesis import strategies as st

from lumi_moai.logs.series import MOST_STARTS, read_series
from lumi_moai.logs.thin import Thin

values = st.floats(allow_nan=True, allow_infinity=True)
LINE = "[Step {}/9] | Loss: {} | Duration: 1.0 | Throughput: {:.2f} tokens/sec\n"


@given(st.lists(values, max_size=300), st.integers(1, 20))
def test_thinning_keeps_the_ends_and_the_extremes(ys, limit):
    thin = Thin(limit)
    for x, y in enumerate(ys):
        thin.add(x, y)
    finite = [(x, y) for x, y in enumerate(ys) if abs(y) < float("inf")]
    points = thin.points
    assert len(points) <= 4 * limit + 2
    assert thin.broken == len(ys) - len(finite)
    assert set(points) <= set(finite)
    assert list(points) == sorted(points)
    if finite:
        assert (points[0], points[-1]) == (finite[0], finite[-1])
        heights = [y for _, y in finite]
        kept = [y for _, y in points]
        assert (min(kept), max(kept)) == (min(heights), max(heights))
    if len(finite) < 2 * limit:
        assert list(points) == finite


def test_a_spike_in_a_hundred_thousand_steps_stays():
    text = "".join(LINE.format(n, 9.5 if n == 70_001 else 1.0, 100) for n in range(1, 100_001))
    (start,) = read_series(io.BytesIO(text.encode())).starts
    assert (70_001, 9.5) in start.loss
    assert len(start.loss) < 1100
    assert (start.first_step, start.last_step, start.records) == (1, 100_000, 100_000)


def test_a_restart_begins_another_line():
    text = "".join(LINE.format(n, n, 100) for n in [1, 2, 3, 4, 3, 4, 5])
    starts = read_series(io.BytesIO(text.encode())).starts
    assert [(each.first_step, each.last_step) for each in starts] == [(1, 4), (3, 5)]
    assert [len(each.loss) for each in starts] == [4, 3]


def test_a_log_that_goes_back_all_the_time_stays_small():
    text = "".join(LINE.format(n % 2, 1.0, 100) for n in range(10_000))
    assert len(read_series(io.BytesIO(text.encode())).starts) == MOST_STARTS


def test_memory_work_and_ranks():
    text = (
        "lumi-moai: data parallel over 16 ranks: global batch 32 is 2 rows a rank\n"
        "lumi-moai: [Step 1] | Duration: 0.4 | Throughput: 512.00 tokens/sec | Memory: 12.31 GiB | MFU: 34.1 %\n"
        "[Step 1/9] | Loss: nan | Duration: 1.0 | Throughput: 600.00 tokens/sec\n"
        "lumi-moai: [Step 10] | Duration: 0.4 | Throughput: 512.00 tokens/sec | Memory: 13.00 GiB\n"
    )
    found = read_series(io.BytesIO(text.encode()))
    assert found.memory == (((1.0, 12.31), (10.0, 13.0)),)
    assert (found.work, found.work_unit, found.ranks) == (32.0, "rows", 16)
    assert (found.starts[0].rate, found.starts[0].loss, found.starts[0].broken) == (((1, 600.0),), (), 1)


def test_memory_of_other_programs():
    line = (
        "step: 10  loss:  1.23890  grad_norm:  0.0498  memory: 21.78GiB(69.44%)  tps: 3,322  tflops: 24.96  mfu: N/A\n"
    )
    assert read_series(io.BytesIO(line.encode())).memory == (((10.0, 21.78),),)
    line = "[01/01 00:00:00 d2.utils.events]:  eta: 0:00:01  iter: 19  total_loss: 1.5  lr: 0.1  max_mem: 2048M\n"
    assert read_series(io.BytesIO(line.encode())).memory == (((19.0, 2.0),),)


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_log(data):
    read_series(io.BytesIO(data))


@given(st.integers(0, 2000))
def test_a_log_cut_at_any_byte(cut):
    text = "".join(LINE.format(n, n / 7, 100) for n in range(1, 30)).encode()
    read_series(io.BytesIO(text[:cut]))
