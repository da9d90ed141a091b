"""Weights that no optimizer has when the ranks share out a model: right gradients from the first backward on."""

import pytest
from one_device import plain, same_run

# Batches come from a DataLoader and, apart from that, from nowhere; `step` updates what no optimizer has.
WEIGHTS = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3); torch.set_default_dtype(torch.float64)
FROM = "FROM"
X = torch.randn(24, 4); Y = X.sum(1, keepdim=True) + 1
X = X[X[:, 0].argsort()]
saved = []
def batches():
    if FROM == "loader":
        yield from enumerate(DataLoader(TensorDataset(X, Y), batch_size=6))
    else:
        yield from ((i, (X[6 * i : 6 * i + 6], Y[6 * i : 6 * i + 6])) for i in range(4))
def sgd(*models): return torch.optim.SGD([p for m in models for p in m.parameters()], lr=0.05)
def net(): return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
def show(name, loss, weights): print(name, f"{loss.item():.8f}", *(f"{p.grad.norm():.8f}" for p in weights if p.grad is not None))
def train(name, model, optim=None, *more, error=F.mse_loss, before=lambda i: None):
    weights = [*model.parameters(), *more]; saved.extend(weights)
    for i, (x, y) in batches():
        before(i)
        loss = error(model(x), y); loss.backward(); show(name, loss, weights)
        if optim: optim.step()
        held = {id(p) for g in optim.param_groups for p in g["params"]} if optim else ()
        for p in weights:
            if p.grad is not None and id(p) not in held: p.data.add_(-0.05 * p.grad)
            p.grad = None
def hand(): train("hand", net(), error=F.smooth_l1_loss)
def frozen():
    m = net(); m[0].requires_grad_(False)
    train("frozen", m, before=lambda i: m[0].requires_grad_(i > 1))
def frozen_beside():
    m = net(); m[0].requires_grad_(False)
    train("frozen beside", m, sgd(m[2]), before=lambda i: m[0].requires_grad_(i > 1))
def second():
    m = net(); o = sgd(m[2])
    train("second", m, o, before=lambda i: i == 2 and o.add_param_group({"params": [*m[0].parameters()]}))
def grown():
    m, o, parts = net(), None, []
    o = sgd(m)
    for i, (x, y) in batches():
        if i == 2: parts.append(net())
        loss = F.mse_loss(m(x) + sum(part(x) for part in parts), y); loss.backward()
        show("grown", loss, [p for part in (m, *parts) for p in part.parameters()]); o.step(); o.zero_grad()
        for p in (p for part in parts for p in part.parameters()): p.data.add_(-0.05 * p.grad); p.grad = None
    saved.extend(p for part in (m, *parts) for p in part.parameters())
class Route(nn.Module):
    # The rows of each rank lead to other weights.
    def __init__(s): super().__init__(); s.a, s.b, s.c = nn.Linear(4, 1), nn.Linear(4, 1), nn.Linear(4, 1)
    def forward(s, x):
        out = s.c(x); first = x[:, 0] > x[:, 1]
        for part, rows in ((s.a, first), (s.b, ~first)):
            if rows.any(): out = out.index_add(0, rows.nonzero()[:, 0], part(x[rows]))
        return out
def route():
    m = Route(); train("route", m, sgd(m.c))
OUT = torch.randn(4, 4, requires_grad=True)
class Outside(nn.Module):
    def __init__(s): super().__init__(); s.a = nn.Linear(4, 1)
    def forward(s, x): return s.a(x @ OUT)
def outside():
    m = Outside(); train("outside", m, sgd(m), OUT)
def outside_held():
    m = Outside(); train("outside held", m, torch.optim.SGD([*m.parameters(), OUT], lr=0.05), OUT)
def made():
    global OUT
    h, m = nn.Linear(4, 16), Outside(); o = sgd(m, h)
    for i, (x, y) in batches():
        OUT = h(torch.ones(8, 4))[0].view(4, 4)
        loss = F.mse_loss(m(x), y); loss.backward(); show("made", loss, [*m.parameters(), *h.parameters()]); o.step(); o.zero_grad()
    saved.extend([*m.parameters(), *h.parameters()])
def hooked():
    m = net()
    for p in m.parameters(): p.register_hook(lambda g: g.clamp(-0.05, 0.05))
    train("hooked", m, sgd(m))
def asked():
    m = net()
    for i, (x, y) in batches():
        loss = F.mse_loss(m(x), y); grads = torch.autograd.grad(loss, list(m.parameters()))
        print("asked", f"{loss.item():.8f}", *(f"{g.norm():.8f}" for g in grads))
        for p, g in zip(m.parameters(), grads): p.data.add_(-0.05 * g)
    saved.extend(m.parameters())
for kind in (KINDS): kind()
torch.save([p.detach() for p in saved], sys.argv[1])
"""
BY_HAND = WEIGHTS.replace('FROM = "FROM"', 'FROM = "hand"').replace(
    "(KINDS)", "(hand, frozen, frozen_beside, second, grown, route, outside, outside_held, made, hooked, asked)"
)
FROM_LOADER = WEIGHTS.replace('FROM = "FROM"', 'FROM = "loader"').replace(
    "(KINDS)", "(frozen_beside, second, grown, route)"
)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("hand"), BY_HAND)


@pytest.mark.parametrize("count", [2, 3])
def test_weights_of_no_optimizer_get_the_gradient_of_all_rows(work, by_hand, count):
    _, ranks = same_run(work, BY_HAND, *by_hand, count)
    assert "its rows are shared out within the model" in ranks[0].err
    assert "every rank computes all of it" not in ranks[0].err
    (reason,) = [line.partition("no faster: ")[2] for line in ranks[0].err.splitlines() if "computed whole" in line]
    assert "is trained and is no parameter of it" in reason


def test_weights_of_no_optimizer_get_the_gradient_of_all_rows_of_a_loader(work):
    same_run(work, FROM_LOADER, *plain(work, FROM_LOADER), 2)
