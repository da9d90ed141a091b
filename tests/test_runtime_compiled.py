"""Models that torch.compile has, with losses and BatchNorm inside: on several ranks they train as on one device."""

import torch
from one_device import plain, same_run
from runtime_ranks import ColdRun
from test_runtime_layouts import COMPILES
from test_runtime_parallel import HEAD
from torch import nn

from lumi_moai.runtime.parallel.resume.ghosts import Ghosts, Twins

# Batches of 4, 4 and 3 rows: one graph serves them all, whatever a rank's rows weigh.
HEADS = (
    HEAD
    + """
x = torch.randn(11, 2, 6)
y = torch.randint(0, 3, (11, 2))
y[::3, 0] = -1
class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
    def head(self, z, y):
        return F.cross_entropy(z.view(-1, 3), y.view(-1), ignore_index=-1)
    def forward(self, x, y):
        z = self.b(torch.relu(self.a(x)))
        return z, self.head(z, y)
class Summed(GPT):
    def head(self, z, y):
        return F.cross_entropy(z.view(-1, 3), y.view(-1), ignore_index=-1, reduction="sum") / 7
class Two(GPT):
    def __init__(self):
        super().__init__()
        self.loss = nn.CrossEntropyLoss(ignore_index=-1, weight=torch.tensor([1.0, 2.0, 3.0]))
    def head(self, z, y):
        loss = self.loss(z.flatten(0, 1), y.flatten())
        return loss + 0.5 * F.mse_loss(z, torch.zeros_like(z)) + 0.1 * self.a.weight.square().sum()
class Normed(GPT):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
    def head(self, z, y):
        return super().head(self.norm(z), y)
saved = []
for kind, words in WORDS:
    torch.manual_seed(5)
    model = kind()
    optim = torch.optim.SGD(model.parameters(), lr=0.3)
    torch._dynamo.reset()
    compiled = torch.compile(model, **words)
    for epoch in "ab":
        compiled.train()
        for a, b in DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True):
            z, loss = compiled(a, b)
            optim.zero_grad()
            loss.backward()
            optim.step()
            print(kind.__name__, "loss", loss.item(), "gradient", model.a.weight.grad.norm().item())
        compiled.eval()
        with torch.no_grad():
            print("evaluated", compiled(x, y)[1].item())
    saved += [*(p.detach() for p in model.parameters()), *model.buffers()]
torch.save(saved, sys.argv[1])
"""
)
AOT = """
AOT = {"backend": "aot_eager"}
WORDS = ((GPT, AOT | {"fullgraph": True}), (Summed, AOT), (Two, AOT), (Normed, AOT | {"fullgraph": True}))
saved = []"""


def _heads(words):
    return HEADS.replace("\nsaved = []", words, 1)


def test_a_compiled_model_with_a_loss_or_a_batchnorm_inside_trains_as_on_one_device(work):
    text = _heads(AOT)
    same_run(work, text, *plain(work, text), 2, kind=ColdRun)


BY_HAND = """
model = GPT()
optim = torch.optim.SGD(model.parameters(), lr=0.3)
compiled = torch.compile(model, backend="aot_eager")
for step in range(3):
    rows = torch.randperm(11)[:5]
    z, loss = compiled(x[rows], y[rows])
    optim.zero_grad()
    loss.backward()
    optim.step()
    print("loss", loss.item(), "out", z.sum().item(), "gradient", model.a.weight.grad.norm().item())
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""


def test_a_batch_that_no_loader_gave_is_shared_out_within_a_compiled_model(work):
    text = HEADS.partition("\nsaved = []")[0] + BY_HAND
    _, ranks = same_run(work, text, *plain(work, text), 2, kind=ColdRun)
    assert "its rows are shared out within the model" in ranks[0].err
    assert "global hooks" not in ranks[0].err, "the counter of operations has some"
    assert "computed whole by every rank" not in ranks[0].err


BLOCKS = """
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)
    def forward(self, x):
        return x + torch.relu(self.a(x))
model = nn.Sequential(*(Block() for _ in range(3)))
optim = torch.optim.SGD(model.parameters(), lr=0.3)
for (a,) in DataLoader(TensorDataset(torch.randn(11, 6)), batch_size=4):
    loss = model(a).square().mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    print("loss", loss.item())
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""


@COMPILES
def test_blocks_compiled_within_the_self_check_are_still_there_behind_it(work):
    """What the compiler had put beside the script's names was taken away with what the check's step had left there."""
    text = HEAD + BLOCKS
    _, ranks = same_run(work, text, *plain(work, text), 2, kind=ColdRun, layout="compile")
    assert "self-check of the first step: loss" in ranks[0].err
    assert "Exception ignored" not in ranks[0].err


def test_a_model_is_compiled_in_one_piece_behind_the_last_repeated_step():
    """An evaluation there still goes through what knows the rows of ghosts."""
    model = torch.compile(nn.Linear(4, 2), backend="eager", fullgraph=True)
    ghosts = Ghosts()
    with Twins(ghosts, "/nowhere"):
        ghosts.is_over = True
        assert model(torch.ones(3, 4)).shape == (3, 2)
