"""Batches that no DataLoader gave: each rank computes its rows of them, and all is as on one device."""

import ast
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from one_device import assert_same_weights, plain, same_run
from runtime_ranks import Run, ended, launch
from test_runtime_resume import assert_one_run, killed_after, start, whole

from lumi_moai.runtime.parallel.undivided.probe import _Noting

# A language model as nanoGPT trains it: a loss within the model, logits that nobody asks for, micro-steps, the next
# batch fetched ahead of backward, evaluation in between, dropout.
GPT = """
import os, sys
import torch, torch.nn.functional as F
from torch import nn
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
B, T, V, C, L = 10, 16, 20, 24, 2
data=torch.randint(V,(3000,))
rows=[]
class Block(nn.Module):
    def __init__(s):
        super().__init__(); s.l1=nn.LayerNorm(C); s.l2=nn.LayerNorm(C); s.a=nn.Linear(C,3*C,bias=False); s.p=nn.Linear(C,C); s.f=nn.Sequential(nn.Linear(C,4*C),nn.GELU(),nn.Linear(4*C,C)); s.d=nn.Dropout(0.1)
    def forward(s,x):
        q,k,v=s.a(s.l1(x)).split(C,2)
        q,k,v=(e.view(*e.shape[:2],4,C//4).transpose(1,2) for e in (q,k,v))
        y=F.scaled_dot_product_attention(q,k,v,is_causal=True).transpose(1,2).reshape(x.shape)
        x=x+s.d(s.p(y)); return x+s.d(s.f(s.l2(x)))
class GPT(nn.Module):
    def __init__(s):
        super().__init__(); s.e=nn.Embedding(V,C); s.q=nn.Embedding(T,C); s.b=nn.ModuleList(Block() for _ in range(L)); s.h=nn.Linear(C,V,bias=False); s.e.weight=s.h.weight
    def forward(s,x,y=None):
        rows.append(x.shape[0])
        z=s.e(x)+s.q(torch.arange(x.shape[1]))
        for b in s.b: z=b(z)
        z=s.h(z)
        return z, None if y is None else F.cross_entropy(z.view(-1,V),y.view(-1),ignore_index=-1)
def get():
    ix=torch.randint(len(data)-T,(B,))
    return torch.stack([data[i:i+T] for i in ix]), torch.stack([data[i+1:i+1+T] for i in ix])
model=GPT(); opt=torch.optim.SGD(model.parameters(),lr=0.3,momentum=0.9)
X,Y=get()
for it in range(6):
    if it%2==0:
        model.eval()
        with torch.no_grad(): print("val",model(*get())[1].item())
        model.train()
    for m in range(2):
        logits,loss=model(X,Y); loss=loss/2
        X,Y=get(); loss.backward()
        if it==1: print(logits.shape, logits.argmax(-1)[:,0].tolist(), logits.mean().item())
    n=nn.utils.clip_grad_norm_(model.parameters(),1.0)
    opt.step(); opt.zero_grad(set_to_none=True)
    print(f"{it} {loss.item()*2:.6f} {n:.6f}")
torch.save(model.state_dict(), sys.argv[1])
os.write(os.open(f"{sys.argv[1]}.{os.getpid()}.rows", os.O_CREAT | os.O_WRONLY), repr({"gpt": rows}).encode())
"""
PIECES = GPT.replace("Dropout(0.1)", "Dropout(0.0)")  # pieces draw their own masks
# What scripts do with batches that they cut themselves, by X[perm[i : i + size]].
ZOO = """
import sys, os
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
import lumi_moai
lumi_moai.enable_advanced_parallelization()
SEEN = {}
N, BS = 26, 8
torch.manual_seed(1)
X = torch.randn(N, 6); Y = (X.sum(1) > 0).long() + (X[:, 0] > 1).long()
saved = []
def note(name, x): SEEN.setdefault(name, []).append(x.shape[0])
class Net(nn.Module):
    def __init__(self, name, *layers):
        super().__init__(); self.name = name; self.net = nn.Sequential(*layers)
    def forward(self, x):
        note(self.name, x)
        return self.net(x)
def mlp(name, out=3, inp=6): return Net(name, nn.Linear(inp, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, out))
def batches():
    perm = torch.randperm(N)
    for i in range(0, N, BS):
        yield X[perm[i:i+BS]], Y[perm[i:i+BS]]
def show(name, *numbers): print(name, *(f"{float(n):.6f}" for n in numbers))
def keep(*models): saved.extend(p.detach().clone() for m in models for p in [*m.parameters(), *m.buffers()])
def optim(*models): return torch.optim.SGD([p for m in models for p in m.parameters()], lr=0.1, momentum=0.9)

def plain_loop():
    m = mlp("mlp"); o = optim(m); right = total = 0
    for xb, yb in batches():
        out = m(xb); loss = F.cross_entropy(out, yb)
        o.zero_grad(); loss.backward(); o.step()
        right += (out.argmax(1) == yb).sum().item(); total += len(yb)
        show("mlp", loss, out.std(), out[0, 0], out[3:].mean(), right, total, m.net[0].weight.grad.norm())
    keep(m)
def norm():
    m = Net("bn", nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)); o = optim(m)
    for xb, yb in batches():
        if len(xb) < 4: continue
        loss = nn.CrossEntropyLoss()(m(xb), yb) + 0.01 * sum((p ** 2).sum() for p in m.parameters())
        o.zero_grad(); loss.backward(); o.step(); show("bn", loss, m.net[1].running_var.sum())
    keep(m)
class Vae(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Linear(6, 8); self.d = nn.Linear(4, 6)
    def forward(self, x):
        note("vae", x); mu, lv = self.e(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        return self.d(z), mu, lv
def vae():
    m = Vae(); o = optim(m)
    for xb, _ in batches():
        r, mu, lv = m(xb)
        loss = (F.mse_loss(r, xb, reduction="sum") - 0.5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())) / len(xb) / 6
        o.zero_grad(); loss.backward(); o.step(); show("vae", loss, mu.norm())
    keep(m)
def gan():
    g, d = Net("g", nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6)), mlp("d", 1); og, od = optim(g), optim(d)
    for xb, _ in batches():
        one, zero = torch.ones(len(xb), 1), torch.zeros(len(xb), 1)
        fake = g(torch.randn(len(xb), 4))
        ld = F.binary_cross_entropy_with_logits(d(xb), one) + F.binary_cross_entropy_with_logits(d(fake.detach()), zero)
        od.zero_grad(); ld.backward(); od.step()
        lg = F.binary_cross_entropy_with_logits(d(fake), one); og.zero_grad(); lg.backward(); og.step()
        show("gan", ld, lg)
    keep(g, d)
def penalty():
    d = mlp("wgan", 1); o = optim(d)
    for xb, _ in batches():
        mix = (xb + 0.1 * torch.randn_like(xb)).requires_grad_()
        out = d(mix)
        (gr,) = torch.autograd.grad(out, mix, torch.ones_like(out), create_graph=True)
        loss = out.mean() + ((gr.norm(2, 1) - 1) ** 2).mean()
        o.zero_grad(); loss.backward(); o.step(); show("wgan", loss, gr.norm())
    keep(d)
def weights():
    m = mlp("maml"); o = optim(m)
    for xb, yb in batches():
        loss = F.cross_entropy(m(xb), yb)
        gr = torch.autograd.grad(loss, list(m.parameters()), create_graph=True)
        second = loss + 0.1 * sum(g.pow(2).sum() for g in gr)
        o.zero_grad(); second.backward(); o.step(); show("maml", loss, second, gr[0].norm())
    keep(m)
def attack():
    m = mlp("fgsm"); o = optim(m)
    for xb, yb in batches():
        xb = xb.clone().requires_grad_()
        F.cross_entropy(m(xb), yb).backward()
        worse = (xb + 0.1 * xb.grad.sign()).detach(); o.zero_grad()
        loss = F.cross_entropy(m(worse), yb); loss.backward(); o.step(); show("fgsm", loss, xb.grad.norm())
    keep(m)
def contrast():
    m = mlp("nce", 5); o = optim(m)
    for xb, _ in batches():
        a, b = F.normalize(m(xb), dim=1), F.normalize(m(xb + 0.1), dim=1)
        loss = F.cross_entropy(a @ b.t() / 0.1, torch.arange(len(xb))); o.zero_grad(); loss.backward(); o.step(); show("nce", loss)
    keep(m)
class Inner(Net):
    def forward(self, x):
        z = F.normalize(super().forward(x), dim=1)
        return z @ z.t()
def inner():
    m = Inner("inner", nn.Linear(6, 8)); o = optim(m)
    for xb, _ in batches():
        loss = F.cross_entropy(m(xb), torch.arange(len(xb))); o.zero_grad(); loss.backward(); o.step(); show("inner", loss)
    keep(m)
class Zero(Net):
    # Mixes rows through a layer that begins at zero.
    def __init__(self):
        super().__init__("zero", nn.Linear(6, 3)); self.mix = nn.Linear(6, 3); nn.init.zeros_(self.mix.weight); nn.init.zeros_(self.mix.bias)
    def forward(self, x): return super().forward(x) + self.mix(x.mean(0, keepdim=True) - x)
def zero():
    m = Zero(); o = optim(m)
    for xb, yb in batches():
        loss = F.cross_entropy(m(xb), yb); o.zero_grad(); loss.backward(); o.step(); show("zero", loss)
    keep(m)
class Kept(Net):
    def forward(self, x):
        out = super().forward(x); self.kl = out.pow(2).sum()
        return out
def kept():
    m = Kept("kept", nn.Linear(6, 3)); o = optim(m)
    for xb, yb in batches():
        loss = F.cross_entropy(m(xb), yb) + 0.01 * m.kl; o.zero_grad(); loss.backward(); o.step(); show("kept", loss)
    keep(m)
class Hand(Net):
    def forward(self, x, y):
        w = (y > 0).float() + 0.1
        return (F.cross_entropy(super().forward(x), y, reduction="none") * w).sum() / w.sum()
def hand():
    m = Hand("hand", nn.Linear(6, 3)); o = optim(m)
    for xb, yb in batches():
        loss = m(xb, yb); o.zero_grad(); loss.backward(); o.step(); show("hand", loss)
    keep(m)
class Loss(Net):
    def forward(self, x, y=None, *, weight=1.0):
        out = super().forward(x)
        return {"loss": weight * F.cross_entropy(out, y, weight=torch.tensor([1., 2., 3.])), "logits": out, "aux": [out.t()]}
def loss():
    m = Loss("loss", nn.Linear(6, 3)); o = optim(m)
    for step, (xb, yb) in enumerate(batches()):
        got = m(xb, yb, weight=1.0 + step); o.zero_grad(); got["loss"].backward(); o.step()
        show("loss", got["loss"], got["logits"].argmax(1).sum(), got["aux"][0][:, -1].sum(), len(got["logits"]))
        print(got["logits"].shape, got["aux"][0].shape, got["logits"].tolist()[0])
    keep(m)
class Again(Net):
    def forward(self, x):
        note(self.name, x)
        return checkpoint(lambda x: self.net[3](F.dropout(self.net[1](self.net[0](x)), 0.5)), x, use_reentrant=False)
def again():
    m = Again("again", nn.Linear(6, 16), nn.Tanh(), nn.Identity(), nn.Linear(16, 3)); o = optim(m)
    for xb, yb in batches():
        l = F.cross_entropy(m(xb), yb); o.zero_grad(); l.backward(); o.step(); show("again", l, m.net[0].weight.grad.norm())
    keep(m)
class Rnn(nn.Module):
    def __init__(self, name, first):
        super().__init__(); self.name = name; self.r = nn.GRU(6, 8, batch_first=first); self.o = nn.Linear(8, 3)
    def forward(self, x, h=None):
        note(self.name, x); out, h = self.r(x, h)
        return self.o(out), h
def rnn(first):
    m = Rnn(f"rnn{first}", first); o = optim(m); h = None
    for step in range(4):
        x = torch.randn(8, 6, 6); l = F.mse_loss(m(x)[0], x[..., :3]); o.zero_grad(); l.backward(); o.step(); show("rnn", l)
    for step in range(4):
        x = torch.randn(8, 6, 6); out, h = m(x, h); h = h.detach(); l = F.mse_loss(out, x[..., :3]); o.zero_grad(); l.backward(); o.step(); show("rnnh", l, h.norm())
    keep(m)
class Gcn(nn.Module):
    def __init__(self):
        super().__init__(); self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
    def forward(self, x, adj):
        note("gcn", x)
        return F.log_softmax(adj @ self.b(F.relu(adj @ self.a(x))), 1)
def gcn():
    m = Gcn(); o = optim(m); adj = torch.eye(N) + (torch.rand(N, N) > 0.8); train = torch.arange(0, N, 2)
    for step in range(4):
        l = F.nll_loss(m(X, adj)[train], Y[train]); o.zero_grad(); l.backward(); o.step(); show("gcn", l)
    keep(m)
def some():
    m = mlp("own"); o = optim(m)
    for xb, yb in batches():
        logits = m(xb)
        l = F.cross_entropy(logits, yb, reduction="none")[torch.randperm(len(xb))[:4]].mean()
        o.zero_grad(); l.backward(); o.step(); show("own", l)
    keep(m)
KINDS = (plain_loop, norm, vae, gan, penalty, weights, attack, contrast, inner, zero, kept, hand, loss, again, lambda: rnn(True), lambda: rnn(False), gcn, some)
for kind in KINDS:
    kind()
torch.save(saved, sys.argv[1])
os.write(os.open(f"{sys.argv[1]}.{os.getpid()}.rows", os.O_CREAT | os.O_WRONLY), repr(SEEN).encode())
"""
SHARED = {"mlp", "bn", "vae", "g", "d", "wgan", "maml", "fgsm", "nce", "loss", "again", "own"}
"""Models of ZOO that keep rows apart."""


def rows_seen(folder):
    """By rank and name of a model, how many rows each of its calls had."""
    return [ast.literal_eval(path.read_text()) for path in sorted(Path(folder).glob("*.rows"))]


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("gpt"), GPT)


@pytest.fixture(scope="module")
def gpt_in_pieces(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("pieces"), PIECES)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("zoo"), ZOO)


@pytest.mark.parametrize(("count", "layout"), [(2, ""), (4, ""), (2, "fsdp"), (4, "tp=2,replicate")])
def test_a_language_model_is_shared_out(work, gpt, count, layout):
    run, ranks = same_run(work, GPT, *gpt, count, layout=layout)
    assert_shared_out(run, ranks, rows=10 // (2 if layout else count))


def test_rows_are_computed_in_pieces_too(work, gpt_in_pieces):
    run, ranks = same_run(work, PIECES, *gpt_in_pieces, 2, layout="micro_batches=2")
    assert_shared_out(run, ranks, rows=2)


def assert_shared_out(run, ranks, *, rows):
    """Assert that the calls of GPT had *rows* or one more, but those that evaluate, and the trial's."""
    assert "no DataLoader made it, and its rows are shared out within the model" in ranks[0].err
    for seen in rows_seen(run.folder):
        trained = [each for each in seen["gpt"] if each != 10]
        assert len(seen["gpt"]) - len(trained) == 3
        assert len(trained) >= 12
        assert set(trained) <= {rows, rows + 1}


@pytest.mark.parametrize("count", [2, 3])
def test_models_that_keep_rows_apart_are_shared_out_and_others_are_not(work, zoo, count):
    run, ranks = same_run(work, ZOO, *zoo, count)
    seen = rows_seen(run.folder)
    assert len(seen) == count
    for name in SHARED:
        assert sorted(each[name][0] for each in seen) == sorted(len(range(8)[place::count]) for place in range(count))
    for name in ("inner", "zero", "kept", "hand", "rnnFalse"):
        assert all(each[name][0] == 8 for each in seen), name
    assert all(each["rnnTrue"][0] < 8 == each["rnnTrue"][-1] for each in seen)
    reasons = dict(re.findall(r"(\w+) is computed whole by every rank, right but no faster: (.*)", ranks[0].err)[::-1])
    assert "depends on other rows" in reasons["Zero"]
    assert "keeps something of the batch" in reasons["Kept"]
    assert "not a loss of torch's alone" in reasons["Hand"]
    assert "(RuntimeError)" in reasons["Gcn"]


# Logits that are still held when a checkpoint is written, beside a loss within the model.
RESUMED = """
import sys, time
import torch, torch.nn.functional as F
from torch import nn
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
X = torch.randn(64, 8); Y = (X.sum(1) > 0).long()
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    def forward(self, x, y):
        out = self.net(x)
        return out, F.cross_entropy(out, y)
def train():
    model = Net(); optim = torch.optim.SGD(model.parameters(), lr=0.1)
    running = torch.zeros(())
    for step in range(40):
        ix = torch.randint(len(X), (6,))
        out, loss = model(X[ix], Y[ix])
        optim.zero_grad(); loss.backward(); optim.step()
        time.sleep(PAUSE)
        running += loss.detach()
        print(f"{step} {loss.item():.6f} {running.item():.6f} {out.norm().item():.4f} {(out.argmax(1) == Y[ix]).sum()}")
    torch.save(model.state_dict(), sys.argv[1])
train()
"""


def test_a_killed_run_without_a_loader_goes_on(work):
    lines, weights = plain(work, RESUMED.replace("PAUSE", "0"))
    run = Run(work / "run", launch(2))
    first = killed_after(run, start(run, RESUMED, 2), 4)
    last = whole(ended(start(run, RESUMED, 2, job="78")))
    assert "resumed at step" in last.err
    assert "its rows are shared out within the model" in last.err
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


def test_what_the_network_still_holds_is_not_kept_by_a_forward():
    """A thread of gloo's lets go of sums a moment later: now and then a model was computed whole for it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        noting = _Noting(tuple)
        with torch.no_grad(), noting:
            sent, kept = torch.ones(2) * 2, torch.ones(3) * 2
            dist.all_reduce(sent)
        assert [len(each) for each in noting.left(())] == [len(kept)]
    finally:
        dist.destroy_process_group()
