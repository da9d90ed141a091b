"""What the runtime says of a training's speed and layout: in the log, in the run folder, and back through the reader."""

import io
import json

import pytest
from runtime_ranks import Run, launch, submitit

from lumi_moai.logs import read
from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel.meter import Measurement

SCRIPT = """
import lumi_moai, torch, torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
tokens = torch.randint(0, 9, (48, 5))
model = torch.nn.Sequential(torch.nn.Embedding(9, 8), torch.nn.Linear(8, 9))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for (x,) in DataLoader(TensorDataset(tokens), batch_size=7):
        loss = F.cross_entropy(model(x).flatten(0, 1), x.flatten())
        optim.zero_grad()
        loss.backward()
        optim.step()
"""


def measured(**words):
    given = {"step": 10, "steps": 9, "seconds": 4.5, "rows": 90, "tokens": 0, "memory_gib": 1.5}
    return Measurement(**{**given, **words})


def test_a_measurement_is_a_step_line():
    assert measured().line == "[Step 10] | Duration: 0.500 | Throughput: 20.00 samples/sec | Memory: 1.50 GiB"
    found = measured(tokens=9000, flops=60e12, peak_flops=191.5e12)
    assert found.line.endswith("Throughput: 2000.00 tokens/sec | Memory: 1.50 GiB | MFU: 31.3 %")
    assert found.is_plausible
    assert found.as_json()["tokens_per_second"] == pytest.approx(2000)


def test_what_no_device_can_do_is_marked():
    found = measured(flops=130e12, peak_flops=191.5e12)
    assert not found.is_plausible
    assert found.line.endswith("MFU: 67.9 % | implausible: above 65 % of the device's peak, not kept")
    log = read(io.BytesIO(f"lumi-moai: {found.line}\nlumi-moai: {measured().line}\n".encode()), "log")
    assert log.records == 1


def test_ranks_tell_their_plan_and_their_speed(work):
    peaks = {"fp32": 0.05}
    run = Run(work, launch(2, peak_tflops=peaks), Wishes(layout=Layout.parse("replicate")))
    ranks = run.ranks(submitit(2), run.script(SCRIPT))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert ranks[1].err == ""
    assert "[info] No PP, No TP, recomputation : default(1), distribute_param : false" in ranks[0].err
    assert "2 full copies of the model, each with its rows of the batch" in ranks[0].err
    plan = json.loads((run.folder / "plan.json").read_text())
    assert (plan["plan"]["dp_replicate"], plan["global_batch_rows"], plan["ranks"]) == (2, 7, 2)
    log = read(io.BytesIO(ranks[0].err.encode()), "log")
    assert (log.format, log.records, log.last_step, log.throughput.unit) == ("lumi-moai", 2, 10, "tokens_per_second")
    kept = json.loads((run.folder / "measured.json").read_text())
    # Steps 2 to 10: the last batch of the first epoch has 6 rows, the others 7, five tokens each.
    assert kept["tokens_per_second"] * kept["step_seconds"] * kept["steps"] == pytest.approx((8 * 7 + 6) * 5)
    assert 0 < kept["mfu"] < 0.65


# Every third step something is evaluated, amid the epoch.
EVALUATED = SCRIPT.replace(
    """        optim.step()
""",
    """        optim.step()
        count = globals().get("count", 0) + 1
        if count % 3 == 0:
            model.eval()
            for (y,) in DataLoader(TensorDataset(tokens), batch_size=4):
                with torch.no_grad():
                    model(y)
            model.train()
""",
)


def test_an_evaluation_amid_an_epoch_does_not_end_the_counting(work):
    run = Run(work, launch(2), Wishes(layout=Layout.parse("replicate")))
    ranks = run.ranks(submitit(2), run.script(EVALUATED))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert "a count read" not in ranks[0].err, "torch's DataLoader draws a number, not the script"
    kept = json.loads((run.folder / "measured.json").read_text())
    assert kept["tokens_per_second"] * kept["step_seconds"] * kept["steps"] == pytest.approx((8 * 7 + 6) * 5)


def test_a_scripts_own_steps_come_first():
    own = b"[Step 1/9] Loss: 2.5 Throughput: 100.0 tokens/sec\n"
    ours = f"lumi-moai: {measured().line}\n".encode()
    assert read(io.BytesIO(ours), "log").format == "lumi-moai"
    for text in (own + ours, ours + own):
        log = read(io.BytesIO(text), "log")
        assert (log.format, log.records, log.last_step) == ("moai", 1, 1)
    blocks = read(io.BytesIO(ours + b"x\n" * 200_000 + own), "log")
    assert (blocks.format, blocks.records) == ("moai", 1)
