"""The self-check: what it finds, what it lets pass, and that it leaves no trace in the script."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Wishes

HEAD = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
x, y = torch.randn(24, 6), torch.randint(0, 4, (24,))
mask = (torch.rand(24, 3) < torch.rand(24, 1)).float()
model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, 4))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(x, y, mask), batch_size=8, shuffle=True)
"""


def loop(loss):
    return f"""
for a, b, m in loader:
    out = model(a)
    loss = {loss}
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item())
"""


def run(work, text, count=2, **wishes):
    there = Run(work, launch(count), Wishes(**wishes))
    return there.ranks(submitit(count), there.script(HEAD + text))


@pytest.mark.parametrize(
    "loss",
    [
        "(out ** 2).sum()",
        "(out[:, :3] ** 2 * m).sum() / m.sum()",
        "F.cross_entropy(out @ out.T, torch.arange(len(out)))",
    ],
    ids=["sum", "masked", "contrastive"],
)
def test_a_loss_that_ranks_cannot_share_is_found(work, loss):
    ranks = run(work, loop(loss))
    assert [rank.code for rank in ranks] == [1, 1], ranks[0].err
    assert [rank.out for rank in ranks] == ["", ""]
    (line,) = [line for rank in ranks for line in rank.err.splitlines() if "self-check" in line]
    assert "2 ranks do not compute what one device does: on 4 rows one device has loss" in line
    assert "--self-check off" in line


def test_it_can_be_switched_off(work):
    ranks = run(work, loop("(out ** 2).sum()"), self_check=False)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err


CLEAN = (
    HEAD
    + """
from tqdm import tqdm
class Trainer:
    def __init__(self):
        self.steps, self.rows, self.seen = 0, 0, []
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Sequential(self.norm, nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.optim = torch.optim.SGD(self.drop.parameters(), lr=0.1)
    def epoch(self, scale):
        for place, (a, b, _) in enumerate(tqdm(loader, disable=True), start=1):
            self.steps += 1
            self.lr = 0.1 / self.steps
            self.drop.eval()
            self.drop.train()
            for part in self.drop:
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
            total = scale * F.cross_entropy(self.drop(a), b)
            self.optim.zero_grad()
            total.backward()
            self.optim.step()
            self.seen.append(self.steps)
            print(f"step {self.steps} place {place} loss {total.item()} seen {len(self.seen)} lr {self.lr}")
trainer = Trainer()
for _ in range(2):
    trainer.epoch(0.5)
step = 0
for a, b, m in loader:
    step += 1
    loss = F.mse_loss(model(a)[:, 0], b.float())
    loss.backward()
    optim.step()
    model.zero_grad()
    print(f"step {step} loss {loss.item()}")
print(f"mean {trainer.norm.running_mean.sum().item():.6f} {int(trainer.norm.num_batches_tracked)}")
torch.save([torch.tensor(p.tolist()) for p in [*model.parameters(), *trainer.drop.parameters()]], sys.argv[1])
"""
)


def test_it_leaves_no_trace(work):
    lines, weights = plain(work, CLEAN)
    for layout in ("replicate", "fsdp"):
        _, ranks = same_run(work, CLEAN, lines, weights, 2, layout=layout)
        assert "self-check" not in ranks[0].err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("it = iter(loader)\n" + loop("F.cross_entropy(out, b)").replace("in loader", "in it"), "begun before"),
        (loop("F.cross_entropy(out + torch.randn_like(out), b)"), "draws random numbers"),
        ("def go(l):\n    l.backward()\n" + loop("F.cross_entropy(out, b)").replace("loss.backward()", "go(loss)"),
         "backward() somewhere else"),
        ("kept = []\n" + loop("F.cross_entropy(out, b)").replace("out = model(a)", "out = model(a); kept.append(1)"),
         "calls append() before backward()"),
        ("it = iter(loader)\na, b, m = next(it)\nF.cross_entropy(model(a), b).backward()", "not fetched by a `for` loop"),
        (loop("F.cross_entropy(out.view(8 // 2, 4), b)"), "fails on a small batch"),
    ],
    ids=["iterator", "random", "elsewhere", "append", "next", "size"],
)  # fmt: skip
def test_what_cannot_be_checked_is_said_and_goes_on(work, text, why):
    ranks = run(work, text)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err + ranks[1].err
    (line,) = [line for rank in ranks for line in rank.err.splitlines() if "self-check" in line]
    assert "the self-check could not be made: " in line
    assert why in line
