"""A model that adds up by hand in its forward: its loss, its counts and its gradients are those of one device."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

# The first batch has no masked word, the others have; 22 rows in batches of 7, 7, 7 and 1.
TEXT = """
import sys
import lumi_moai, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
words = torch.randint(1, 11, (22, 6))
lengths = torch.tensor([6] * 7 + [1, 2, 3, 6, 5, 1, 1, 2, 6, 4, 3, 2, 6, 1, 5])
loader = DataLoader(TensorDataset(words, torch.arange(6) < lengths[:, None]), batch_size=7)

class Masked(nn.Module):
    def forward(self, nll, mask):
        return (nll * mask).sum() / mask.sum()

class Model(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.calls = way, 0
        self.embed, self.place = nn.Embedding(11, 8), nn.Parameter(torch.randn(6, 8))
        self.block = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm, self.head, self.drop = nn.LayerNorm(8), nn.Linear(8, 11), nn.Dropout(0.1)
        self.each, self.masked = nn.CrossEntropyLoss(reduction="none"), Masked()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, ids, mask=None):
        B, T = ids.shape
        self.calls += 1
        self.seen += 1
        h = self.drop(self.embed(ids) + self.place[:T])
        h = self.norm(h + checkpoint(self.block, h, use_reentrant=False))
        logits = self.head(h)
        if mask is None:
            return logits
        nll = self.each(logits.view(-1, 11), ids.view(-1)).view(B, T)
        wanted = ids.masked_fill(~mask, -100)
        right = ((logits.argmax(-1) == ids) & mask).sum() / mask.sum()
        if self.way == "sum":
            loss = (nll * mask).sum() / mask.sum()
        elif self.way == "mean":
            loss = nll[mask].mean() + 0.1 * (1 - right)
        elif self.way == "picked":
            loss = F.cross_entropy(self.head(h[mask]), ids[mask], reduction="sum") / mask.sum()
        elif self.way == "tokens":
            loss = F.cross_entropy(logits.view(B * T, -1), wanted.view(B * T), reduction="sum") / mask.sum().item()
        elif self.way == "part":
            loss = self.masked(nll, mask) + 1e-3 * self.place.pow(2).sum()
        else:
            loss = ((logits.softmax(-1) - F.one_hot(ids, 11)) ** 2).mean().sqrt()
        return {"loss": loss, "right": right, "logits": logits}

for way in ("sum", "mean", "picked", "tokens", "part", "root"):
    torch.manual_seed(1)
    model = Model(way).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for ids, mask in loader:
        found = model(ids, mask)
        loss = found["loss"]
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(f"{way} {loss.item():.6f} {float(norm):.6f} {found['right'].item():.6f} {len(found['logits'])}")
    print(model.calls, model.seen.item())
torch.save(model.state_dict(), sys.argv[1])
"""


@pytest.mark.parametrize(("layout", "count"), [("", 2), ("", 3), ("fsdp", 2)])
def test_what_a_model_adds_up_by_hand_is_of_the_whole_batch(work, layout, count):
    lines, weights = plain(work, TEXT)
    same_run(work, TEXT, lines, weights, count, layout=layout)


def test_it_is_so_without_the_self_check(work):
    lines, weights = plain(work, TEXT)
    same_run(work, TEXT, lines, weights, 2, self_check=False)


PIECES = """
import sys
import lumi_moai, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
loader = DataLoader(TensorDataset(torch.randn(22, 4), torch.arange(22) % 7 < 5), batch_size=8)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 4)
    def forward(self, x, mask):
        out = (self.net(x) - x) ** 2
        return LOSS

model = Model().to("cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for x, mask in loader:
    optimizer.zero_grad()
    loss = model(x, mask)
    loss.backward()
    optimizer.step()
    print(f"{loss.item():.6f}")
torch.save(model.state_dict(), sys.argv[1])
"""


@pytest.mark.parametrize(
    "loss",
    [
        "out[mask].mean()",
        "(out * mask[:, None]).sum() / mask.sum()",
        "out.mean().sqrt()",
        "F.mse_loss(self.net(x), x, reduction='sum') / mask.sum()",
    ],
)
def test_rows_in_pieces_are_refused_by_name(work, loss):
    run = Run(work, launch(2), Wishes(layout=Layout.parse("micro_batches=2"), self_check=False))
    ranks = run.ranks(submitit(2), run.script(PIECES.replace("LOSS", loss)), "w.pt")
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("Model cannot be computed in micro-batches: it adds up a number" in rank.err for rank in ranks)


def test_means_in_pieces_are_right(work):
    text = PIECES.replace("LOSS", "0.5 * out.mean() + F.l1_loss(self.net(x), x) + 0.1 * self.net.weight.pow(2).sum()")
    lines, weights = plain(work, text)
    same_run(work, text, lines, weights, 2, layout="micro_batches=2")


# Batches of 3, 3 and 2 rows, all fetched before the first backward; then one backward of all their losses.
AHEAD = """
import sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
rows = TensorDataset(torch.randn(8, 4))
class Mean(nn.Linear):
    def forward(self, x): return super().forward(x).square().mean()
model = Mean(4, 4)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for (x,) in iter(list(DataLoader(rows, batch_size=3))):
    loss = model(x)
    optim.zero_grad(); loss.backward(); optim.step()
    print(f"loss {loss.item()}")
total = 0
for (x,) in iter(list(DataLoader(rows, batch_size=3))):
    total = total + model(x)
optim.zero_grad(); total.backward(); optim.step()
print(f"total {total.item()}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""


def test_losses_of_batches_that_were_fetched_ahead_are_those_of_one_device(work):
    same_run(work, AHEAD, *plain(work, AHEAD), 2)


# A codebook, sizes of its codes, a center and a count of rows, all changed behind their use, so that the first loss says nothing.
KEPT = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
rows = TensorDataset(torch.randn(17, 5) * 3)
class Quantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("codes", torch.randn(8, 6) * 0.3)
        self.register_buffer("size", torch.ones(8))
        self.register_buffer("total", self.codes.clone())
        self.register_buffer("center", torch.zeros(1, 6))
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, h):
        at = (h.pow(2).sum(1, keepdim=True) - 2 * h @ self.codes.t() + self.codes.pow(2).sum(1)).argmin(1)
        hot, q = F.one_hot(at, 8).type(h.dtype), F.embedding(at, self.codes)
        if self.training:
            self.size.data.mul_(0.9).add_(hot.sum(0), alpha=0.1)
            self.total.data.mul_(0.9).add_(hot.t() @ h.detach(), alpha=0.1)
            n = self.size.sum()
            self.codes.data.copy_(self.total / ((self.size + 1e-5) / (n + 8e-5) * n)[:, None])
            self.center = self.center * 0.9 + torch.sum(h.detach(), dim=0, keepdim=True) / len(h) * 0.1
            self.seen += h.shape[0]
        return h + (q - h).detach(), F.mse_loss(q.detach(), h)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.q, self.b = nn.Linear(5, 6), Quantizer(), nn.Linear(6, 5)
    def forward(self, x):
        z, far = self.q(torch.tanh(self.a(x)))
        return self.b(z), far
model = Net()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for (x,) in DataLoader(rows, batch_size=7):
        out, far = model(x)
        loss = F.mse_loss(out, x) + 0.25 * far
        loss.backward()
        optim.step()
        optim.zero_grad()
        print(f"loss {loss.item()}", *(each.norm().item() for each in model.buffers()))
torch.save(model.state_dict(), sys.argv[1])
"""


@pytest.mark.parametrize("layout", ["", "fsdp"])
def test_buffers_that_a_model_changes_are_of_the_whole_batch(work, layout):
    same_run(work, KEPT, *plain(work, KEPT), 2, layout=layout)


# Torch's own InstanceNorm, whose running statistics are means over rows; a model that is no code of the script's.
NORM = """
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
model = nn.Sequential(nn.Linear(5, 6), nn.InstanceNorm1d(3, track_running_stats=True), nn.Linear(6, 5))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for (x,) in DataLoader(TensorDataset(torch.randn(14, 3, 5)), batch_size=7):
    F.mse_loss(model(x), x).backward()
    optim.step()
    print("trained")
"""


def test_buffers_that_a_library_changes_with_each_rank_s_rows_are_refused(work):
    run = Run(work, launch(2), Wishes(self_check=False))
    ranks = run.ranks(submitit(2), run.script(NORM))
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("Sequential changes its buffer 1.running_mean with the rows of each rank" in rank.err for rank in ranks)
    assert ranks[0].out == ""


# Means of codes and a center that a forward keeps in parameters, as it was done before there were buffers: new ones in their place, and
# edits of `.data`, which no version of a tensor counts. What came of the first call shows in the second loss only.
PARAMETERS = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
class Quantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.codes, self.total = nn.Embedding(8, 4), nn.Parameter(torch.randn(8, 4))
        self.center = nn.Parameter(torch.zeros(4), requires_grad=False)
    def forward(self, h):
        flat = h.view(-1, 4) - self.center
        at = torch.cdist(flat, self.codes.weight).argmin(1).unsqueeze(1)
        hot = torch.zeros(at.shape[0], 8)
        hot.scatter_(1, at, 1)
        q = (hot @ self.codes.weight).view(h.shape)
        if self.training:
            size = hot.sum(0) + 1
            self.total = nn.Parameter(self.total * 0.9 + 0.1 * (hot.t() @ flat))
            self.codes.weight = nn.Parameter(self.total / size.unsqueeze(1))
            with torch.no_grad():
                self.center.data.mul_(0.9).add_(0.1 * h.mean((0, 1)))
        share = hot.mean(0)
        return h + (q - h).detach(), (q.detach() - h).pow(2), torch.exp(-torch.sum(share * torch.log(share + 1e-10)))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.q, self.b = nn.Linear(5, 4), Quantizer(), nn.Linear(4, 5)
    def forward(self, x):
        z, far, spread = self.q(torch.tanh(self.a(x)))
        return self.b(z), far, spread
model = Net()
optim = torch.optim.SGD([*model.a.parameters(), *model.b.parameters()], lr=0.1)
for epoch in range(2):
    for (x,) in DataLoader(TensorDataset(torch.randn(17, 3, 5) * 3), batch_size=7):
        out, far, spread = model(x)
        loss = F.mse_loss(out, x) + 0.25 * far.mean()
        loss.backward()
        optim.step()
        optim.zero_grad()
        print(f"loss {loss.item()} {spread.item()}", *(each.norm().item() for each in model.q.parameters()))
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""


@pytest.mark.parametrize("count", [2, 3])
def test_parameters_that_a_forward_changes_are_of_the_whole_batch(work, count):
    same_run(work, PARAMETERS, *plain(work, PARAMETERS), count)


def test_parameters_in_parts_that_a_forward_changes_are_refused(work):
    """What is gathered for a forward is let go behind it: the change was lost without a word."""
    run = Run(work, launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(PARAMETERS), str(work / "weights.pt"))
    assert [rank.code for rank in ranks] == [1, 1]
    assert any("the forward of Quantizer changes" in rank.err for rank in ranks)
    assert ranks[0].out == ""


# A model in training mode, and a teacher that adds up by hand, both called without gradients amid a training batch.
WITHOUT_GRADIENTS = """import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
X, Y = torch.randn(23, 4), torch.randn(23, 1)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("scale", torch.ones(4))
    def forward(self, x):
        if self.training:
            self.seen += len(x)
            self.scale = 0.9 * self.scale + 0.1 * x.detach().std(0)
        return self.body(self.norm(x) / self.scale)
class Measuring(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)
    def forward(self, x, y):
        return ((self.body(x) - y) ** 2).sum() / (x[:, 0] > 0).sum()
model, teacher = Net(), Measuring().eval()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for step, (x, y) in enumerate(DataLoader(TensorDataset(X[:21], Y[:21]), batch_size=7)):
    out = model(x)
    loss = F.mse_loss(out, y)
    opt.zero_grad(); loss.backward(); opt.step()
    print(loss.item(), model.scale.tolist(), model.seen.item())
    with torch.no_grad():
        again = model(x)
        print("again", F.mse_loss(again, y).item(), model.scale.tolist(), model.seen.item(), model.norm.running_mean.tolist(), teacher(x, y).item())
torch.save([*model.parameters(), *model.buffers()], sys.argv[1])
"""


def test_a_call_without_gradients_amid_a_training_batch_is_of_all_rows(work):
    same_run(work, WITHOUT_GRADIENTS, *plain(work, WITHOUT_GRADIENTS), 2)
