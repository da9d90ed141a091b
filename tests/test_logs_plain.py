"""Lines that scripts print by hand; all written by us in the manner of well-known tutorials."""

import pytest
from test_logs_nasty import line, read

PLAIN = [
    ("Epoch [1/10], Step [{step}/600], Loss: {loss:.4f}", 600, None),
    ("Train Epoch: 1 [{step}/60000 (1%)]\tLoss: {loss:.6f}", 60000, None),
    ("[1, {step:5d}] loss: {loss:.3f}", None, None),
    ("epoch 1 step {step} loss {loss:.4f}", None, None),
    ("2026-01-02 10:00:00 INFO iter {step}/100 | train_loss {loss:.4f} | lr 1e-4 | 12.5 ms", 100, None),
    ("step {step}: loss={loss:.4f} lr=1e-4 1,234 samples/s", None, ("samples_per_second", 1234.0)),
    ("step = {step}, loss = {loss:.4f}, lr = 0.1", None, None),
    ("[2026-01-02 10:00:00][train][INFO] - [{step}/100] loss: {loss:.4f} lr: 1e-4", 100, None),
    ("global_step: {step}, training loss = {loss:.4f}, 5.5K tok/s", None, ("tokens_per_second", 5500.0)),
]


@pytest.mark.parametrize(("text", "total", "rate"), PLAIN)
def test_a_line_printed_by_hand_is_a_step(text, total, rate):
    log = read("".join(text.format(step=step, loss=2 / step) + "\n" for step in range(1, 9)))
    assert (log.format, log.records, log.first_step, log.last_step) == ("plain", 8, 1, 8)
    assert (log.total_steps, log.loss_first, log.loss_last, log.restarts) == (total, 2.0, 0.25, 0)
    assert (log.throughput and (log.throughput.unit, log.throughput.median)) == rate


@pytest.mark.parametrize(
    "text",
    [
        "saving step 100 to loss.pt",
        "step 100 val_loss 2.5",
        "step 100 validation loss 2.5",
        "Epoch 3: val loss 0.25",
        "Epoch 3: val_loss did not improve from 0.25",
        "Validation Epoch: 3 Loss: 0.25",
        "Epoch 0.5: loss 0.25",
        "stepping 4 loss 2.5",
        "step 100: train loss 2.5100, val loss 2.6100",
        "step 12.5 loss 2.5",
        "the batch 7 was lost: loss n/a",
        "Step/Epoch [50/1][50/1000]:total_eta: 1:00:00, lr:1.0e-05, loss:2.5",
    ],
)
def test_what_only_looks_like_a_step_is_none(text):
    assert read(f"{text}\n" * 3).records == 0


LOSS_FIRST = [
    ("INFO:tensorflow:loss = {loss:.4f}, step = {step} (3.123 sec)", None),
    ("[INFO] - loss: {loss:.4f}, learning_rate: 1e-05, global_step: {step}, interval_samples_per_second: 31.5", 31.5),
]


@pytest.mark.parametrize(("text", "rate"), LOSS_FIRST)
def test_the_loss_may_stand_ahead_of_the_step(text, rate):
    log = read("".join(text.format(step=step, loss=2 / step) + "\n" for step in range(1, 9)))
    assert (log.format, log.records, log.last_step, log.loss_last) == ("loss-first", 8, 8, 0.25)
    assert (log.throughput and log.throughput.median) == rate


def test_a_format_of_a_program_wins():
    log = read("step 1 loss 9.0\n" + "".join(line(step) for step in (1, 2, 3)))
    assert log.records == 3
    assert log.format != "plain"
