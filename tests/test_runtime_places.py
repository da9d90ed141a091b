"""Rows by their place, one by one, added up in tables; rows that a data set draws numbers for: as on one device."""

import pytest
import torch
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import refused

from lumi_moai.plan import Wishes
from lumi_moai.runtime.parallel import own_chance

HEAD = """
import os, random, sys
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
import lumi_moai
NAME = os.environ.get("RANK", "one")
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
"""
# Parts of a batch by place, and the seams of what was joined; 39 rows, so the last batch is shared out unequally.
PLACES = (
    HEAD
    + """
PLACE = 3
x = torch.randn(39, 4); y = (x.sum(1) > 0).long() + (x[:, 0] > 1).long(); z = torch.randn(39, 4)
def begin(bn=False, seed=3):
    torch.manual_seed(seed)
    m = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if bn else nn.Tanh(), nn.Dropout(0.3) if bn else nn.Identity(), nn.Linear(8, 3))
    return m, torch.optim.SGD(m.parameters(), lr=0.1)
def tell(name, m, loss, opt, *more):
    opt.zero_grad(); loss.backward()
    norm = nn.utils.clip_grad_norm_(m.parameters(), 100.0).item()
    opt.step()
    print(name, f"{loss.item():.6f} {norm:.6f}", *[f"{float(each):.6f}" for each in more])
def run(name, loss, **how):
    m, opt = begin(**how)
    for a, b, c in DataLoader(TensorDataset(x, y, z), batch_size=8):
        got = loss(m, a, b, c)
        tell(name, m, *(got if isinstance(got, tuple) else (got,))[:1], opt, *(got[1:] if isinstance(got, tuple) else ()))
    print(name, "end", float(sum(p.double().sum() for p in m.state_dict().values())))
def late(m, a, b, c):
    out = m(a); return F.cross_entropy(out[4:], b[4:])
run("late", late)
def late_sum(m, a, b, c):
    out = m(a); return F.cross_entropy(out[4:], b[4:], reduction="sum") / 3
run("late_sum", late_sum)
def first_sum(m, a, b, c):
    out = m(a); return F.cross_entropy(out[:3], b[:3], reduction="sum") / 3 + F.cross_entropy(out, b)
run("first_sum", first_sum)
def half(m, a, b, c):
    n = a.size(0); out = m(a); return F.cross_entropy(out[n // 2:], b[n // 2:]) + 2 * F.cross_entropy(out[:n // 2], b[:n // 2])
run("half", half)
def half_in(m, a, b, c):
    n = len(a); return F.cross_entropy(m(a[n // 2:]), b[n // 2:]) + 2 * F.cross_entropy(m(a[:n // 2]), b[:n // 2], reduction="sum") / n
run("half_in", half_in)
run("half_bn", half_in, bn=True)
def chunk(m, a, b, c):
    p, q = m(a).chunk(2); s, t = b.chunk(2); return F.cross_entropy(p, s) + 2 * ((q - 1) ** 2).mean()
run("chunk", chunk)
def split(m, a, b, c):
    parts = torch.split(m(a), 3); return sum(((each - i) ** 2).sum() for i, each in enumerate(parts)) / 10
run("split", split)
def tsplit(m, a, b, c):
    one, two = m(a).split([2, len(a) - 2]); return F.mse_loss(one, torch.zeros_like(one)) + two.std()
run("tsplit", tsplit)
def evenodd(m, a, b, c):
    out = m(a); n = min(len(out[::2]), len(out[1::2])); return F.mse_loss(out[::2][:n], out[1::2][:n].detach())
run("evenodd", evenodd)
def mixed(m, a, b, c):
    n = a.size(0) // 2; both = 0.3 * a[:n] + 0.7 * a[n:2 * n]; out = m(both)
    return 0.3 * F.cross_entropy(out, b[:n]) + 0.7 * F.cross_entropy(out, b[n:2 * n]), out.mean()
run("mixed", mixed)
def tail(m, a, b, c):
    out = m(a); return F.cross_entropy(out, b), out[-2:].sum(), out[0].max(), out[-1, 2], out[PLACE + 1].sum(), (out[1:] - out[:-1]).abs().mean()
run("tail", tail)
# the seams
def seam(m, a, b, c):
    n = a.size(0); out = m(torch.cat([a, c])); p, q = out.chunk(2); return F.cross_entropy(p, b) + (q ** 2).mean()
run("seam", seam)
def seam2(m, a, b, c):
    n = a.size(0); out = m(torch.cat([a, c])); p, q = out[:n], out[n:]; return F.cross_entropy(p, b) + (q ** 2).mean() + F.mse_loss(p, q.detach())
run("seam2", seam2)
def seam3(m, a, b, c):
    n = a.size(0); out = m(torch.cat([a, c, a + c])); p, q, r = out.split(n); return F.cross_entropy(p, b) + (q ** 2).mean() + F.mse_loss(p, r.detach())
run("seam3", seam3)
def seam4(m, a, b, c):
    both = torch.cat([a, c]); one, two = both[:len(a)], both[len(a):]; t, s = torch.cat([b, b]).chunk(2)
    return F.cross_entropy(m(one), t) + F.mse_loss(m(two), torch.cat([two, two])[: len(a), :3])
run("seam4", seam4)
def seam5(m, a, b, c):
    out = torch.cat([m(a), m(c)]); p, q = out.chunk(2, dim=0); return F.cross_entropy(p, b) + F.mse_loss(p.softmax(1), q.softmax(1).detach())
run("seam5", seam5)
def wholly(m, a, b, c):
    total = 0
    for i in range(0, 8, 2):
        if i < len(a): total = total + F.cross_entropy(m(a[i:i + 2]), b[i:i + 2], reduction="sum")
    return total / len(a)
run("wholly", wholly)
def joined(m, a, b, c):
    n = len(a) // 2; return F.cross_entropy(m(torch.cat([a[n:], a])), torch.cat([b[n:], b]), reduction="sum") / n
run("joined", joined)
def noise(m, a, b, c):
    n = len(a) // 2; p = a[:n]; return F.cross_entropy(m(p + torch.randn_like(p)), b[:n])
run("noise", noise)
torch.save([], sys.argv[1])
"""
)
# Counts in tables, row by row and at once, beside draws of a generator of the script's own.
TABLES = (
    HEAD
    + """
x = torch.randn(21, 4); y = (x.sum(1) > 0).long() + (x[:, 0] > 1).long()
m = nn.Linear(4, 3); o = torch.optim.SGD(m.parameters(), lr=0.1)
counter, meter, hits = torch.zeros(1), torch.zeros(2), torch.zeros(())
confusion, sums, means, hist, put = torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), torch.zeros(3, 3)
by_row, looped = torch.zeros(3, 3), torch.zeros(3, 3)
right = wrong = 0
gen = torch.Generator().manual_seed(4)
for a, b in DataLoader(TensorDataset(x, y), batch_size=8):
    noise = torch.randn(a.shape, generator=gen); keep = torch.rand(len(a), 1, generator=gen)
    out = m(a + 0.1 * noise * keep); loss = F.cross_entropy(out, b)
    centers = torch.zeros(3, 3).index_add(0, b, out) / 8
    loss = loss + (centers ** 2).sum() * 0.1
    o.zero_grad(); loss.backward(); o.step()
    pred = out.argmax(1)
    counter += a.size(0); meter[0] += len(a); meter[1] += (pred == b).sum(); hits += (pred == b).sum()
    counter.add_(len(b))
    sums.scatter_add_(0, b, torch.ones_like(b, dtype=torch.float)); means.index_add_(0, b, a); hist += torch.bincount(b, minlength=3)
    put.index_put_((b, pred), torch.ones(len(b)), accumulate=True)
    for i in range(len(pred)):
        by_row[b[i], pred[i]] += 1
        if pred[i] == b[i]: right += 1
    for i, (t, p) in enumerate(zip(b, pred)):
        looped[t, p] += 1; wrong += int(pred[i] != t)
    print(loss.item(), counter.item(), meter.tolist(), hits.item(), sums.tolist(), hist.tolist(), f"{means.sum():.5f} {means[1, 2]:.5f}", put.tolist(), by_row.tolist(), looped.tolist(), right, wrong)
torch.save([m.weight.data], sys.argv[1])
"""
)


@pytest.mark.parametrize("text", [PLACES, TABLES], ids=["places", "tables"])
def test_rows_by_their_place_are_those_of_the_whole_batch(work, text):
    lines, weights = plain(work, text)
    for count in (2, 3):
        same_run(work, text, lines, weights, count)


def test_a_parameter_of_rows_is_refused(work):
    refused(work, PARAMETER, "nn.Parameter of a batch's rows would be another weight on each rank")


PARAMETER = """
lumi_moai.enable_advanced_parallelization()
model = nn.Linear(4, 2)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for x in DataLoader(torch.randn(16, 4), batch_size=8):
    nn.Parameter(x.mean(0))
    nn.Parameter(x)
"""

DRAWN = (
    HEAD
    + """
class Data(Dataset):
    def __len__(self):
        return 16
    def __getitem__(self, place):
        drawn = [torch.rand(()).item(), random.random(), np.random.rand()]
        if place % 3 == 0:
            torch.rand(3), random.random(), np.random.rand()
        return torch.tensor(drawn, dtype=torch.float64)
for workers in (0, 2):
    model = nn.Linear(3, 1).double()
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for rows in DataLoader(Data(), batch_size=8, shuffle=True, num_workers=workers):
        loss = model(rows).pow(2).mean()
        optim.zero_grad(); loss.backward(); optim.step()
        for number in rows.flatten().tolist():
            print("drawn", number)
        with os.fdopen(os.open(f"{sys.argv[1]}.{NAME}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), "w") as log:
            log.write(f"{torch.rand(2)[0].item()} {random.random()} {np.random.rand()}\\n")
"""
)


def test_what_a_data_set_draws_is_another_number_for_each_row_and_leaves_the_ranks_in_step(work):
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(DRAWN), str(work / "next"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    drawn = [line for line in ranks[0].out.splitlines() if line.startswith("drawn")]
    assert len(set(drawn)) == len(drawn) == 2 * 16 * 3
    assert (work / "next.0").read_text() == (work / "next.1").read_text()


def test_a_data_set_that_draws_nothing_is_soon_fetched_without_a_stream_of_its_own():
    fetching = own_chance.Fetching(lambda rows: rows, own_chance.OwnChance(1))
    before = torch.get_rng_state()
    assert [fetching(rows) for rows in range(3)] == [0, 1, 2]
    assert torch.equal(before, torch.get_rng_state())
    fetching.chance.drawing = None
    assert fetching(3) == 3
    drawing = own_chance.Fetching(torch.rand, own_chance.OwnChance(1))
    first, second = drawing(3), drawing(3)
    assert not torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


ALONE = (
    HEAD
    + """
model = nn.Linear(1, 1)
optim = torch.optim.SGD(model.parameters(), lr=0.01)
for rows in DataLoader(torch.arange(16.0)[:, None], batch_size=8):
    out = model(rows)
    if NAME == "1":
        print(out.sum().item())
    if NAME != "1":
        optim.zero_grad(); F.mse_loss(out, rows).backward(); optim.step()
"""
)


IN_ONE_LINE = ALONE.partition("    if NAME")[0] + (
    "    [out.sum().item() for _ in range(rows.tolist()[0][0] == 4)]; F.mse_loss(out, rows).backward(); optim.step()\n"
)


@pytest.mark.parametrize(("text", "first", "second"), [(ALONE, 20, 18), (IN_ONE_LINE, 17, 17)], ids=["lines", "line"])
def test_ranks_that_wait_for_each_other_without_end_are_stopped(work, monkeypatch, text, first, second):
    monkeypatch.setenv("LUMI_MOAI_STUCK_SECONDS", "5")
    run = Run(work / "run", launch(2), Wishes(self_check=False))
    ranks = run.ranks(submitit(2), run.script(text))
    assert all(rank.code for rank in ranks)
    said = f"at line {first} of script.py, and rank 1 at line {second} of script.py, and neither will come"
    assert said in ranks[0].err
    assert not any("was killed" in rank.err for rank in ranks)


def test_so_they_are_while_the_self_check_runs_which_prints_nothing(work, monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_STUCK_SECONDS", "5")
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(IN_ONE_LINE.replace("== 4", "> 0")))
    assert all(rank.code for rank in ranks)
    assert "and rank 1 at line 17 of script.py, and neither will come" in ranks[0].err


# Queues that the script fills row by row, and tables with an entry for each sample or label, written ahead of backward.
KEPT = """
import sys, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(3)
x, y = torch.randn(17, 5) * 3, torch.randn(17, 2)
model = nn.Linear(5, 2)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
bank, flat, ptr, seen, labels = torch.zeros(40, 2), torch.zeros(40), 0, torch.zeros(17, 2), torch.arange(17) % 5
last = torch.zeros(5)
for epoch in range(2):
    for step, (a, b, i) in enumerate(DataLoader(TensorDataset(x, y, torch.arange(17)), batch_size=SIZE, shuffle=True)):
        out = model(a)
        hot = torch.zeros(len(i), 17)
        hot[torch.arange(len(i)), i] = 1
        loss = F.mse_loss(out, b) + 0.1 * F.mse_loss(out, seen[i]) + hot.sum(1).mean()
        n = out.shape[0]
        bank[ptr:ptr + n] = out.detach()
        flat[ptr:ptr + n].copy_(out.detach()[:, 0])
        seen[i] = 0.6 * seen[i] + 0.4 * out.detach()
        last[labels[i]] = 1.0
        loss.backward()
        bank[ptr:ptr + len(a), 1] = out.detach()[:, 0]
        ptr = (ptr + n) % 20
        optim.step()
        optim.zero_grad()
        print(f"loss {loss.item()} {bank.sum().item()} {flat.sum().item()} {seen.sum().item()} {last.sum().item()} {ptr}")
torch.save([bank, flat, seen, last, model.weight.detach()], sys.argv[1])
"""


@pytest.mark.parametrize("size", ["7", "2"])
def test_rows_that_a_script_keeps_in_queues_and_tables_are_those_of_all_ranks(work, size):
    script = KEPT.replace("SIZE", size)
    same_run(work, script, *plain(work, script), 2)


# Places that are drawn among the rows of a batch, and rows that are written by their place; behind a first epoch, where the
# self-check sees nothing of it. Random numbers behind each say whether the ranks have drawn as many.
DRAWN_PLACES = (
    HEAD
    + """
random.seed(0); np.random.seed(0)
X, Y = torch.randn(23, 4), torch.randn(23, 1)
chance, generator = random.Random(1), np.random.default_rng(2)
def one(x):
    return x[random.randrange(len(x))]
def inclusive(x):
    return x[random.randint(0, len(x) - 1)]
def sampled(x):
    k = random.sample(range(len(x)), 2); print(k); return x[k]
def own_chance(x):
    return x[chance.sample(range(x.size(0)), k=2)].mean(0)
def shuffled(x):
    k = list(range(len(x))); random.shuffle(k); print(k); return x[k][:2]
def part_shuffled(x):
    k = list(range(len(x))); random.shuffle(k); return x[k[: len(k) // 2]]
def chosen(x):
    k = random.choices(range(len(x)), k=3); return x[k]
def numpys(x):
    k = np.random.randint(0, len(x), 3); print(k); return x[k]
def choice(x):
    k = np.random.choice(len(x), 2, replace=False); print(k.tolist()); return x[k]
def generators(x):
    return x[generator.integers(len(x), size=2)] + x[generator.choice(len(x))]
def permuted(x):
    return x[np.random.permutation(len(x))[:2]]
def numpy_shuffled(x):
    k = np.arange(len(x)); np.random.shuffle(k); return x[k][:2]
def torchs(x):
    k = torch.randint(0, len(x), (2,)); print(k); return x[k]
def bootstrapped(x):
    return x[torch.randint(len(x), (len(x),))]
def first_of_order(x):
    return x[torch.randperm(x.size(0))[:2]]
def negatives(x):
    return ((x[:, None] - x[torch.randint(0, len(x), (len(x), 3))]) ** 2).sum(2)
def numpy_again(x):
    return x[np.random.randint(0, len(x), size=len(x))]
def written(x):
    x = x.clone(); x[:2] = 0; return x
def scaled(x):
    x = x.clone(); x[: len(x) // 2] *= 0.5; x[1:] += 1; return x
def in_place(x):
    x = x.clone(); x[:2].mul_(0.5); x[-1].zero_(); return x
def single(x):
    x = x.clone(); x[0] = 1.0; x[-1] = x[0] * 2; x[0, 1] = 5; return x
def exchanged(x):
    z = x.clone(); z[:1] = x[-1:]; return z
def drawn(x):
    x = x.clone(); x[torch.randint(len(x), (2,))] = 0; x[torch.randperm(len(x))[:1], 0] = 7; return x
def listed(x):
    x = x.clone(); x[random.sample(range(len(x)), 1)] = 3; x[np.random.choice(len(x), 1)] = 4; return x
def by_rows(x):
    x = x.clone(); x[torch.randperm(len(x))[:1]] = torch.arange(4.0)[None]; x[:] = x * 2; return x
def constant(x):
    z = torch.zeros(len(x), 4); z[: len(x) // 2] = 1; return z * x
WAYS = [one, inclusive, sampled, own_chance, shuffled, part_shuffled, chosen, numpys, choice, generators, permuted, numpy_shuffled, torchs,
        bootstrapped, first_of_order, negatives, numpy_again, written, scaled, in_place, single, exchanged, drawn, listed, by_rows, constant]
model = nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for step, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), batch_size=7)):
        if epoch and step < 3:
            for way in WAYS:
                z = way(x)
                print(way.__name__, tuple(z.shape), (z * torch.linspace(1, 2, z.shape[-1]) + z ** 2).sum().item(), random.random(), torch.rand(1).item(), np.random.rand())
        out = model(written(x)) if epoch else model(x)
        if epoch:
            out = out.clone(); out[: 2] *= 3; out[-1] = out[1] * 2
        loss = F.mse_loss(out, y)
        opt.zero_grad(); loss.backward(); opt.step()
        print(loss.item(), x.sum().item())
torch.save(list(model.parameters()), sys.argv[1])
"""
)


@pytest.mark.parametrize("count", [2, 3])
def test_places_that_are_drawn_or_written_are_those_of_the_whole_batch(work, count):
    same_run(work, DRAWN_PLACES, *plain(work, DRAWN_PLACES), count)
