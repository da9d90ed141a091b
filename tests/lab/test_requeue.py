"""A training that real Slurm requeues, in mid-step and at the signal ahead of its time limit: the log is that of one run."""

import os
import re
import signal
import subprocess
from pathlib import Path

from test_jobs import Door, door  # noqa: F401  (a fixture)

TRAIN = """
import os, time
import lumi_moai, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
lumi_moai.enable_advanced_parallelization()
loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to("cuda")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(EPOCHS):
    for number, (x,) in enumerate(loader):
        loss = (model(x.to("cuda")) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"epoch {epoch}.{number} loss {loss.item():.6f}", flush=True)
        time.sleep(PAUSE)
"""


PAUSE = "0 if 'SLURM_RESTART_COUNT' in os.environ else 0.25"


def losses(door, run):  # noqa: F811
    return re.findall(r"epoch (\S+) loss (\S+)", door.run("logs", run["job_id"]).stdout)


def text(epochs, pause):
    return TRAIN.replace("EPOCHS", str(epochs)).replace("PAUSE", pause)


def whole_run(door, epochs):  # noqa: F811
    run = door.submit("--flavor", "Small", door.script(text(epochs, "0")))
    door.run("wait", run["job_id"])
    return losses(door, run)


def assert_same(got, expected):
    assert [place for place, _ in got] == [place for place, _ in expected]
    assert all(abs(float(mine) - float(theirs)) < 2e-6 for (_, mine), (_, theirs) in zip(got, expected, strict=True))


def test_a_training_requeued_in_mid_step_goes_on(door):  # noqa: F811
    expected = whole_run(door, 12)
    run = door.submit("--flavor", "Medium", "--checkpoint", "2", door.script(text(12, "0.25")))
    door.log_until(run["job_id"], "epoch 6.1", seconds=120)
    door.cluster.run("scontrol", "requeue", run["job_id"])
    assert door.until(run["job_id"], "COMPLETED", seconds=180) == "COMPLETED"
    assert "lumi-moai: resumed at step" in door.run("logs", run["job_id"]).stdout
    assert_same(losses(door, run), expected)


def test_a_killed_rank_ends_the_job_and_half_the_devices_go_on(door):  # noqa: F811
    expected = whole_run(door, 12)
    run = door.submit("--flavor", "Large", "--checkpoint", "2", door.script(text(12, "0.25")))
    door.log_until(run["job_id"], "epoch 6.1", seconds=120)
    ranks = subprocess.run(
        ["pgrep", "-f", f"python.* -m lumi_moai.runtime .*{run['folder']}"], capture_output=True, text=True
    )
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    assert door.until(run["job_id"], "FAILED", seconds=120) == "FAILED"
    again = door.submit("--flavor", "Medium", "--resume", run["job_id"])
    assert again["devices"] == 2
    assert door.until(again["job_id"], "COMPLETED", "FAILED", seconds=180) == "COMPLETED"
    assert "lumi-moai: resumed at step" in door.run("logs", again["job_id"]).stdout
    first, second = losses(door, run), losses(door, again)
    assert 0 < len(second) < len(expected)
    overlap = len(first) + len(second) - len(expected)
    assert 0 <= overlap <= 1, "a line may have been printed after the checkpoint knew of it"
    assert_same(first[: len(first) - overlap] + second, expected)


def test_a_training_that_hears_of_its_time_limit_asks_to_go_on(door):  # noqa: F811
    """The signal is sent by hand, because Slurm may send it a minute early; the job script does the rest."""
    expected = whole_run(door, 24)
    run = door.submit("--flavor", "Medium", door.script(text(24, PAUSE)))
    door.log_until(run["job_id"], "epoch 5.1", seconds=120)
    door.cluster.run("scancel", "--signal=USR2", run["job_id"])
    assert door.until(run["job_id"], "COMPLETED", seconds=300) == "COMPLETED"
    shown = door.run("logs", run["job_id"]).stdout
    assert "the job asks to be queued again" in shown
    assert "lumi-moai: resumed at step" in shown
    assert list(Path(run["folder"], "checkpoints").glob("requeue-*"))
    assert_same(losses(door, run), expected)


FULL = TRAIN.replace(
    "nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))",
    "Full(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))",
).replace(
    "torch.manual_seed(0)",
    """on_ranks = int(os.environ["WORLD_SIZE"]) > 1

class Full(nn.Sequential):  # which fits with one row; no device here ever runs out
    def forward(self, x):
        if len(x) > 1 and on_ranks:
            raise torch.OutOfMemoryError("HIP out of memory")
        return super().forward(x)

torch.manual_seed(0)""",
)


def test_weights_in_parts_that_run_out_of_memory_go_on_in_smaller_pieces(door):  # noqa: F811
    expected = whole_run(door, 3)
    script = door.script(FULL.replace("EPOCHS", "3").replace("PAUSE", "0"))
    run = door.submit("--flavor", "Large", "--layout", "fsdp", script)
    assert door.until(run["job_id"], "COMPLETED", "FAILED", seconds=300) == "COMPLETED"
    logs = "".join(path.read_text() for path in Path(run["folder"], "logs").glob("*-rank*.log"))
    assert "the job asks to be queued again, and will compute each rank's rows in 2 micro-batches" in logs
    assert_same(losses(door, run), expected)
