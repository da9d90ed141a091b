"""Logs that end in the middle of a number, byte by byte."""

import pytest
from test_logs_nasty import read

LINES = {
    "plain": "step {step} loss: {loss:.4f}",
    "repr": "step {step} loss={loss!r}",
    "composer": "[batch={step}/20]: loss/train/total: {loss:.4f}",
    "exponent": "step {step} loss {loss:.4E}",
    "key=value": "step={step} loss={loss:.5f}",
    "fairseq": '{{"loss": "{loss:.4f}", "wps": "288.7", "num_updates": "{step}"}}',
    "bar": "\rEpoch 0:  10%|#  | {step}/20 [00:10<00:20,  1.73it/s, loss={loss:.4f}, v_num=0]",
    "json": '{{"step": {step}, "loss": {loss:.4f}}}',
    "keras": "{step}/20 [====] - 2s 12ms/step - loss: {loss:.4f}",
}
LOSSES = (9.8765, 8.7654, 7.6543, 6.5432)


def written(line, end):
    return "".join(line.format(step=step, loss=loss) + end for step, loss in enumerate(LOSSES, 1))


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_no_cut_gives_a_loss_that_was_not_written(line):
    end = "" if line.startswith("\r") else "\n"
    begin = line.format(step=0, loss=9.9999) + end
    text = begin + written(line, end)
    for cut in range(len(begin), len(text)):
        assert read(text[:cut]).loss_last in (9.9999, *LOSSES), text[:cut][-60:]


@pytest.mark.parametrize(
    "line", ["step {step} loss: {loss:.4f}", "step {step} loss {loss:.4E}", "step {step} loss {loss:.0f}"]
)
def test_a_loss_with_all_its_decimals_needs_no_line_end(line):
    assert read(written(line, "\n").rstrip("\n")).loss_last == pytest.approx(LOSSES[-1], rel=0.1)


def test_a_short_loss_is_torn_only_where_all_others_are_longer():
    assert read("step 1 loss 0.55\nstep 2 loss 0.4").loss_last == 0.55
    assert read("step 1 loss 0.5\nstep 2 loss 0.333\nstep 3 loss 0.4").loss_last == 0.4
    assert read("step 1 loss 0.4").loss_last == 0.4
