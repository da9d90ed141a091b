"""Steps that begin anew in every epoch, and lines that tell an epoch as a whole; all written by us."""

import io

import pytest
from test_logs_nasty import read

from lumi_moai.logs.series import read_series

WITHIN = {
    "plain": "Epoch [{epoch}/3], Step [{step}/40], Loss: {loss:.4f}",
    "mnist": "Train Epoch: {epoch} [{step}/40 (1%)]\tLoss: {loss:.6f}",
    "cifar": "[{epoch}, {step:5d}] loss: {loss:.3f}",
    "metriclogger": "Epoch: [{epoch}]  [{step:3d}/40]  eta: 0:02:08  lr: 0.1  loss: {loss:.4f} (9.9)  time: 0.5  data: 0.1",
    "timm": "Train: {epoch} [{step:4d}/40 ( 10%)]  Loss: {loss:.4f} (9.9)  Time: 0.5s,  100.0/s  (0.6s,  90.0/s)",
    "swin": "Train: [{epoch}/3][{step}/40]\teta 0:02:08 lr 0.1\tTime 0.5 (0.6)\tloss {loss:.4f} (9.9)\tmem 2048MB",
    "mmengine": "Epoch(train)  [{epoch}][{step:4d}/40]  lr: 2.0e-02  eta: 0:39:15  time: 0.5  data_time: 0.1  loss: {loss:.4f}",
    "key=value": "epoch={epoch} step={step} loss={loss:.4f}",
    "JSON": '{{"epoch": {epoch}, "step": {step}, "loss": {loss:.4f}}}',
    "lightning": "Epoch {epoch}:  10%|#   | {step}/40 [00:10<00:20,  1.73it/s, loss={loss:.4f}, v_num=0]",
}


def written(line, epochs, steps=range(10, 41, 10)):
    return "".join(line.format(epoch=e, step=s, loss=9 / (e * 40 + s + 1)) + "\n" for e in epochs for s in steps)


@pytest.mark.parametrize("line", WITHIN.values(), ids=WITHIN)
def test_a_new_epoch_is_no_restart(line):
    log = read(written(line, (1, 2, 3)))
    assert (log.records, log.restarts, log.new_epochs) == (12, 0, 2)
    assert (log.first_epoch, log.last_epoch, log.first_step, log.last_step) == (1, 3, 10, 40)


@pytest.mark.parametrize("line", WITHIN.values(), ids=WITHIN)
def test_an_epoch_that_comes_again_is_a_restart(line):
    log = read(written(line, (1, 2)) + written(line, (2, 3)) + written(line, (3,), (10, 20)))
    assert (log.restarts, log.last_epoch, log.last_step) == (2, 3, 20)


@pytest.mark.parametrize("line", WITHIN.values(), ids=WITHIN)
def test_a_chart_counts_on_from_epoch_to_epoch(line):
    (start,) = read_series(io.BytesIO(written(line, (1, 2, 3)).encode())).starts
    assert (start.first_step, start.last_step, start.records) == (10, 120, 12)


def test_a_chart_leaves_steps_alone_that_count_on_by_themselves():
    text = "".join(f"epoch {1 + step // 50} step {step} loss 2.5\n" for step in range(10, 101, 10))
    (start,) = read_series(io.BytesIO(text.encode())).starts
    assert (start.first_step, start.last_step) == (10, 100)


def test_a_long_log_with_epochs_is_read_as_columns_to_the_same_result():
    text = written(WITHIN["timm"], range(2000), range(0, 40, 2))
    assert len(text) > 3 << 20
    log = read(text)
    assert (log.records, log.restarts, log.new_epochs, log.last_epoch, log.last_step) == (40000, 0, 1999, 1999, 38)


EPOCHS = [
    "Epoch {}: train loss {:.3f} val loss 9.4",
    "Epoch {}/10 - loss: {:.3f}",
    "Epoch [{}/10], Loss: {:.4f}",
    "Epoch: {} | Train Loss: {:.3f} | Val. Loss: 9.9 | Time: 3s",
    "epoch={} loss={:.3f} acc=0.93",
    "====> Epoch: {} Average loss: {:.4f}",
    "2026-01-02 10:00:00 INFO Epoch {:03d}, training loss = {:.3f}, 1.2e3 samples/s",
]


@pytest.mark.parametrize("line", EPOCHS)
def test_a_line_of_a_whole_epoch_is_a_record_without_a_step(line):
    log = read("".join(line.format(epoch, 2 / epoch) + "\n" for epoch in (1, 2, 4, 2)))
    assert (log.format, log.records, log.first_step, log.last_step) == ("epochs", 4, None, None)
    assert (log.first_epoch, log.last_epoch, log.loss_first, log.loss_last, log.restarts) == (1, 2, 2.0, 1.0, 1)


def test_epochs_count_only_where_no_steps_are():
    text = "".join(
        "".join(f"epoch {epoch} step {step} loss 2.5\n" for step in (1, 2)) + f"Epoch {epoch}: train loss 9.0\n"
        for epoch in (1, 2)
    )
    log = read(text)
    assert (log.format, log.records, log.loss_last) == ("plain", 4, 2.5)


RATES = {
    "tokens/s=1234": ("tokens_per_second", 1234.0),
    "tok/sec: 1.2k": ("tokens_per_second", 1200.0),
    "tokens_per_second: 1,234.5": ("tokens_per_second", 1234.5),
    "samples/s = 33": ("samples_per_second", 33.0),
    "images/sec 33.5 lr 1": ("samples_per_second", 33.5),
    "1234 tokens/s | samples/s: 3": ("tokens_per_second", 1234.0),
    "tokens/s/gpu: 1234": ("tokens_per_second", 1234.0),
    "1234 tokens/s/gpu": ("tokens_per_second", 1234.0),
}


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_by_its_name(rate):
    log = read("".join(f"step {step} loss 2.5 {rate}\n" for step in (1, 2, 3)))
    assert log.records == 3
    assert (log.throughput and (log.throughput.unit, log.throughput.median)) == RATES[rate]
