"""What scripts do beside training: scaled losses, bfloat16, seeds in the loop, a teacher by hand, an early stop."""

from one_device import plain, same
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import HEAD

# A gradient that is infinite for one row only, so on one rank; bfloat16 under autocast; a seed set in the loop; a
# teacher that follows by hand; a stop that the loss decides, with an exit code of the script's own.
HABITS = (
    HEAD
    + """
import copy, logging
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).cuda()
teacher = copy.deepcopy(model).requires_grad_(False).eval()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
best, patience = float("inf"), 0
for step, (rows, weight) in enumerate(DataLoader(TensorDataset(x.repeat(4, 1), torch.ones(64)), batch_size=8)):
    torch.manual_seed(step)
    if step == 2:
        weight = torch.where((rows == x[7]).all(1), torch.inf, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step == 5):
        out = model(rows)
    with torch.no_grad():
        wanted = teacher(rows)
    loss = ((out.float() - wanted - 1).pow(2)[:, 0] * weight).mean()
    optim.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optim)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    scaler.step(optim)
    scaler.update()
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), model.parameters()):
            slow.lerp_(fast, 0.01)
    number = loss.item()
    logging.info(f"step {step} loss {number:.3f} scale {scaler.get_scale()}")
    best, patience = (number, 0) if number < best else (best, patience + 1)
    if number < 0.7 and step > 5:
        torch.save(model.state_dict(), sys.argv[1])
        sys.exit(3 if __import__("lumi_moai.runtime.here", fromlist=["here"]).here() else 0)
"""
)


def test_habits_give_the_result_of_one_device(work):
    lines, _ = plain(work, HABITS)
    assert any("scale 512.0" in line for line in lines)
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(HABITS), str(work / "mine.pt"))
    assert [rank.code for rank in ranks] == [3, 3], ranks[0].err
    assert ranks[1].out == ""
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)


# Torch does not call the model here, so what it computes in 16 bits shows by `autocast` alone.
EMBEDDED = """
import sys, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(2)
class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8))
    def embed(self, x):
        return self.net(x)
model = Siamese()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for a, b, y in DataLoader(TensorDataset(torch.randn(33, 6), torch.randn(33, 6), torch.randint(0, 2, (33,)).float()), batch_size=11):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        d = F.pairwise_distance(model.embed(a), model.embed(b))
        loss = torch.mean((1 - y) * torch.clamp(2.0 - d, min=0.0) ** 2 + y * d**2)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""


def test_a_part_of_a_model_that_is_called_in_16_bits_may_differ_by_their_rounding(work):
    run = Run(work, launch(3))
    ranks = run.ranks(submitit(3), run.script(EMBEDDED), str(work / "weights.pt"))
    assert [rank.code for rank in ranks] == [0, 0, 0], ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err
