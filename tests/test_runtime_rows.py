"""What tutorials do with the rows of a batch: averages, metrics, mixing, sums by hand; as on one device, or refused."""

import pytest
from one_device import plain, same, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

HEAD = """
import atexit, math, random, sys
from collections import deque
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
"""
END = "\ntorch.save([], sys.argv[1])\n"
# A loss times a number of rows, whatever was read of it before.
AVERAGES = (
    HEAD
    + """
torch.manual_seed(7)
x = torch.randn(19, 4); y = (x.sum(1) > 0).long()
class AverageMeter:
    def __init__(self): self.reset()
    def reset(self): self.val = self.avg = self.sum = self.count = 0
    def update(self, val, n=1):
        self.val = val; self.sum += val * n; self.count += n; self.avg = self.sum / self.count
def go(kind, when):
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    total = seen = running = 0.0; losses = []; meter = AverageMeter(); meter2 = AverageMeter()
    ema = None
    total_t = torch.zeros(1)
    for rows, labels in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        out = model(rows)
        loss = F.cross_entropy(out, labels) if kind == "torch" else (out[:, 0] - labels).pow(2).mean() if kind == "hand" else F.cross_entropy(out, labels, reduction="none").mean()
        if when == "before": print("value", loss.item())
        if when == "float": f = float(loss)
        optim.zero_grad(); loss.backward(); optim.step()
        if when == "after": print("value", f"{loss.item():.6f}")
        if when == "str": print("value", f"{loss:.6f}")
        n = rows.size(0)
        total += loss.detach() * n; seen += n
        print("a", float(loss.detach() * n), (n * loss.detach()).item(), float(loss) * n, n * float(loss), loss.item() * n, n * loss.item())
        print("b", float(loss.data * n), float(loss.detach().cpu() * rows.size(0)), float(loss.detach().cpu().numpy() * n), float(n * loss.detach().numpy()))
        print("c", float(loss * n), float((loss * n).detach()), (loss * n).item(), float(loss.detach().clone() * len(rows)), float(loss.detach().double() * len(rows)))
        print("d", float(loss.detach().mul(n)), float(torch.mul(loss.detach(), n)), float(torch.tensor(n) * loss.detach()), float(torch.tensor(float(n))))
        print("e", float(loss.detach() / n), float(loss.detach() + n), float(n - loss.detach()), float(loss.detach() * labels.numel()), float(loss.detach() * labels.shape[0]))
        total_t += loss.detach() * n
        running = 0.9 * running + 0.1 * loss.item()
        ema = loss.detach() if ema is None else ema.lerp(loss.detach(), 0.1)
        losses.append(loss.detach()); meter.update(loss.item(), n=rows.size(0)); meter2.update(loss.data, rows.size(0))
    print(kind, when, float(total / seen), total_t.item() / 19, running, float(ema), torch.stack(losses).mean().item(), torch.tensor([float(l) for l in losses]).mean().item(), meter.avg, float(meter2.avg), sum(losses).item() / len(losses))
for kind, when in (("torch", "before"), ("torch", "str"), ("hand", "after"), ("none", "float"), ("torch", "never")):
    go(kind, when)
"""
    + END
)
# Counts of what the model gives, and lists of predictions and labels.
METRICS = (
    HEAD
    + """
torch.manual_seed(7)
x = torch.randn(19, 4); y = (x.sum(1) > 0).long() + (x[:, 0] > 1).long()
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
crit = nn.CrossEntropyLoss()
def accuracy_score(a, b): return sum(int(p == q) for p, q in zip(a, b)) / len(a)
for epoch in range(2):
    y_true, y_pred, outs, probs, arr = [], [], [], [], []
    cm = torch.zeros(3, 3, dtype=torch.long)
    for rows, labels in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        out = model(rows)
        loss = crit(out, labels)
        optim.zero_grad(); loss.backward(); optim.step()
        pred = out.argmax(dim=1)
        print("n", (out > 0).sum().item(), pred.bincount(minlength=3).tolist(), torch.bincount(pred, minlength=3).tolist())
        print("max", out.max().item(), out.min().item(), out.detach().max().item(), out.abs().max().item(), float(out.std()), out.detach().std().item(), out.norm().item())
        print("mean", out.detach().mean().item(), out.mean().item(), out.detach().sum().item(), float(out.detach().softmax(1).max(1)[0].mean()), out.mean(0).detach().sum().item())
        print("ent", -(F.softmax(out, 1) * F.log_softmax(out, 1)).sum(1).mean().item(), (1 - out).mean().item(), out.detach().median().item())
        conf, idx = torch.max(F.softmax(out.detach(), dim=1), 1)
        print("conf", conf.mean().item(), conf.max().item(), (conf > 0.5).sum().item(), idx.unique().tolist(), labels.unique().tolist(), (labels == 1).nonzero().size(0), len(out[labels == 1]), out[labels == 1].shape[0])
        acc = (pred == labels).sum().float() / labels.size(0)
        acc2 = (pred == labels).float().sum() / rows.size(0)
        print("acc", acc.item(), acc2.item(), float((pred == labels).sum()) / len(labels), ((pred == labels).sum() / rows.shape[0]).item())
        y_true.extend(labels.tolist()); y_pred += pred.cpu().numpy().tolist(); outs.append(out.detach().cpu())
        probs.extend(F.softmax(out, 1)[:, 1].detach().cpu().numpy()); arr.append(labels.numpy())
        for t, p in zip(labels.view(-1), pred.view(-1)): cm[t.long(), p.long()] += 1
        print("sel", out.gather(1, labels.view(-1, 1)).mean().item(), out[torch.arange(len(out)), labels].sum().item(), [int(v) for v in pred[labels > 0].tolist()])
        tp = ((pred == 1) & (labels == 1)).sum().float(); fp = ((pred == 1) & (labels != 1)).sum().float()
        print("prec", (tp / (tp + fp + 1e-8)).item(), torch.topk(out, 2, dim=1)[1].eq(labels.unsqueeze(1)).any(1).float().mean().item())
    print(accuracy_score(y_true, y_pred), len(y_true), y_true, y_pred, torch.cat(outs).shape, torch.cat(outs).argmax(1).tolist(), float(sum(probs)), np.concatenate(arr).tolist(), np.mean(np.concatenate(arr)))
    print(cm.tolist())
"""
    + END
)
# Rows mixed with other rows, rows moved along their gradient, weights trained without an optimizer.
MIXED = (
    HEAD
    + """
torch.manual_seed(7); np.random.seed(3)
x = torch.randn(19, 4); y = (x.sum(1) > 0).long()
def begin():
    torch.manual_seed(7); np.random.seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
crit = nn.CrossEntropyLoss()
def mixup_data(x, y, alpha, how):
    lam = np.random.beta(alpha, alpha)
    batch_size = x.size()[0]
    index = torch.randperm(batch_size) if how == 0 else np.random.permutation(batch_size) if how == 1 else torch.from_numpy(np.random.permutation(x.size(0)))
    return lam * x + (1 - lam) * x[index, :], y, y[index], lam
for how in range(3):
    model, optim, loader = begin()
    tot = cor = 0
    for rows, labels in loader:
        mixed, a, b, lam = mixup_data(rows, labels, 0.4, how)
        out = model(mixed)
        loss = lam * crit(out, a) + (1 - lam) * crit(out, b)
        optim.zero_grad(); loss.backward(); optim.step()
        pred = out.max(1)[1]
        tot += labels.size(0)
        cor += (lam * pred.eq(a.data).cpu().sum().float() + (1 - lam) * pred.eq(b.data).cpu().sum().float())
        print("mix", how, loss.item(), float(cor) / tot, rows[torch.randperm(len(rows))].mean().item())
    print(float(sum(p.detach().double().sum() for p in model.parameters())))
# adversarial
model, optim, loader = begin()
for rows, labels in loader:
    rows.requires_grad_()
    out = model(rows); loss = crit(out, labels)
    optim.zero_grad(); loss.backward()
    g = rows.grad
    print("adv", loss.item(), g.abs().max().item(), g.norm().item(), rows.grad.data.abs().mean().item(), g[0].abs().sum().item())
    adv = (rows + 3 * g).detach()
    loss = 0.5 * crit(model(rows), labels) + 0.5 * crit(model(adv), labels)
    optim.zero_grad(); loss.backward(); optim.step()
    print(loss.item(), rows.grad.norm().item())
# pgd with delta
model, optim, loader = begin()
for rows, labels in loader:
    delta = torch.zeros_like(rows, requires_grad=True)
    for _ in range(2):
        l = (model(rows + delta)[:, 0] - labels).pow(2).mean()
        l.backward()
        delta.data = (delta + 5 * delta.grad.detach()).clamp(-1, 1)
        delta.grad.zero_()
    optim.zero_grad(); loss = crit(model(rows + delta.detach()), labels); loss.backward(); optim.step()
    print("pgd", loss.item(), delta.detach().norm().item(), delta.abs().sum().item())
# x_adv clone
model, optim, loader = begin()
for rows, labels in loader:
    adv = rows.clone().detach(); adv.requires_grad = True
    F.cross_entropy(model(adv), labels, reduction="sum").backward()
    adv = adv + adv.grad
    optim.zero_grad(); loss = crit(model(adv), labels); loss.backward(); optim.step()
    print("fgsm", loss.item())
# trained by hand beside
model, optim, loader = begin()
scale = torch.ones(2, requires_grad=True); shift = torch.zeros(1); shift.requires_grad = True
for rows, labels in loader:
    loss = crit(model(rows) * scale + shift, labels) + 0.1 * (model(rows).pow(2).sum(1) * scale[0]).mean()
    optim.zero_grad(); loss.backward(); optim.step()
    with torch.no_grad():
        scale -= 0.5 * scale.grad; shift -= 0.5 * shift.grad
        scale.grad.zero_(); shift.grad = None
    print("hand", loss.item(), scale.tolist(), shift.item())
"""
    + END
)
# A sum written by hand beside one of torch's.
VAE = (
    HEAD
    + """
torch.manual_seed(1)
X = torch.rand(70, 12)
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(12, 16); self.mu = nn.Linear(16, 3); self.lv = nn.Linear(16, 3); self.d = nn.Linear(3, 16); self.o = nn.Linear(16, 12)
    def encode(self, x): h = F.relu(self.a(x)); return self.mu(h), self.lv(h)
    def reparam(self, mu, lv): return mu + torch.randn_like(mu) * torch.exp(0.5 * lv)
    def decode(self, z): return torch.sigmoid(self.o(F.relu(self.d(z))))
    def forward(self, x):
        mu, lv = self.encode(x.view(-1, 12)); return self.decode(self.reparam(mu, lv)), mu, lv
def elbo(recon, x, mu, lv):
    bce = F.binary_cross_entropy(recon, x.view(-1, 12), reduction='sum')
    return bce - 0.5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())
for style in range(4):
    torch.manual_seed(3)
    model = VAE().to("cuda"); opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = DataLoader(TensorDataset(X), batch_size=16, shuffle=True)
    for epoch in range(2):
        model.train(); train_loss = 0
        for i, (data,) in enumerate(loader):
            data = data.to("cuda"); opt.zero_grad()
            if style == 1:
                mu, lv = model.encode(data); recon = model.decode(model.reparam(mu, lv))
            else: recon, mu, lv = model(data)
            if style < 2: loss = elbo(recon, data, mu, lv)
            elif style == 2:
                rec = ((recon - data) ** 2).sum(dim=1).mean(dim=0); kld = torch.mean(-0.5 * torch.sum(1 + lv - mu ** 2 - lv.exp(), dim=1), dim=0)
                loss = rec + 0.1 * kld
            else:
                rec = ((recon - data) ** 2).sum() / data.size(0); kld = -0.5 * (1 + lv - mu ** 2 - lv.exp()).sum() / len(mu)
                loss = rec + 0.1 * kld; print("parts", rec.item(), kld.item())
            loss.backward(); train_loss += loss.item(); opt.step()
            if i % 2 == 0: print("Train {} [{}/{} ({:.0f}%)]\\tLoss: {:.6f}".format(epoch, i * len(data), len(loader.dataset), 100. * i / len(loader), loss.item() / len(data)))
        print("====> {} {:.4f}".format(epoch, train_loss / len(loader.dataset)))
"""
    + END
)
# A student that learns from a teacher.
DISTILLED = (
    HEAD
    + """
torch.manual_seed(0)
X = torch.randn(45, 6); Y = torch.randint(0, 4, (45,))
class Net(nn.Module):
    def __init__(self, w):
        super().__init__(); self.features = nn.Sequential(nn.Linear(6, w), nn.ReLU(), nn.Linear(w, 8)); self.classifier = nn.Linear(8, 4)
    def forward(self, x): f = self.features(x); return self.classifier(f), f
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
teacher, student = Net(32), Net(8)
ce = nn.CrossEntropyLoss(); topt = torch.optim.Adam(teacher.parameters(), lr=1e-2)
for epoch in range(2):
    teacher.train(); running = 0.0
    for x, y in loader:
        topt.zero_grad(); out, _ = teacher(x); loss = ce(out, y); loss.backward(); topt.step(); running += loss.item()
    print(f"Epoch {epoch + 1}, Loss: {running / len(loader)}")
opt = torch.optim.Adam(student.parameters(), lr=1e-2); T = 2.0; cos = nn.CosineEmbeddingLoss(); mse = nn.MSELoss()
teacher.eval(); student.train()
for epoch in range(2):
    running, agree, n = 0.0, 0, 0
    for x, y in loader:
        opt.zero_grad()
        with torch.no_grad(): tl, tf = teacher(x)
        sl, sf = student(x)
        soft_t = F.softmax(tl / T, dim=-1); soft_p = F.log_softmax(sl / T, dim=-1)
        kd = torch.sum(soft_t * (soft_t.log() - soft_p)) / soft_p.size()[0] * (T ** 2)
        kd2 = F.kl_div(soft_p, soft_t, reduction="batchmean") * T * T
        hid = cos(sf, tf, target=torch.ones(x.size(0))) + mse(sf, tf)
        loss = 0.25 * kd + 0.75 * ce(sl, y) + 0.1 * hid + 0.1 * kd2
        loss.backward(); opt.step()
        running += loss.item(); agree += (sl.argmax(1) == tl.argmax(1)).sum().item(); n += len(y)
        print("kd", kd.item(), kd2.item(), hid.item(), (sl - tl).abs().max().item())
    print(f"Epoch {epoch + 1} {running / len(loader):.6f} agree {agree}/{n} lr {opt.param_groups[0]['lr']}")
"""
    + END
)
# Pairs and triplets.
SIAMESE = (
    HEAD
    + """
torch.manual_seed(0); random.seed(0)
class Pairs(Dataset):
    def __init__(self, n=50):
        g = torch.Generator().manual_seed(5); self.x = torch.randn(n, 5, generator=g); self.y = torch.randint(0, 3, (n,), generator=g)
    def __len__(self): return len(self.x)
    def __getitem__(self, i):
        j = (i * 7 + 3) % len(self); return self.x[i], self.x[j], torch.tensor([float(self.y[i] != self.y[j])])
class ContrastiveLoss(nn.Module):
    def __init__(self, margin=2.0): super().__init__(); self.margin = margin
    def forward(self, a, b, label):
        d = F.pairwise_distance(a, b, keepdim=True)
        return torch.mean((1 - label) * torch.pow(d, 2) + label * torch.pow(torch.clamp(self.margin - d, min=0.0), 2))
class Siam(nn.Module):
    def __init__(self): super().__init__(); self.f = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4))
    def forward_once(self, x): return self.f(x)
    def forward(self, a, b): return self.forward_once(a), self.forward_once(b)
net = Siam().cuda(); crit = ContrastiveLoss(); opt = torch.optim.Adam(net.parameters(), lr=5e-3)
counter, hist, it = [], [], 0
for epoch in range(2):
    for i, (a, b, lab) in enumerate(DataLoader(Pairs(), shuffle=True, batch_size=9), 0):
        a, b, lab = a.cuda(), b.cuda(), lab.cuda()
        opt.zero_grad(); o1, o2 = net(a, b); loss = crit(o1, o2, lab); loss.backward(); opt.step()
        d = F.pairwise_distance(o1, o2)
        if i % 2 == 0:
            print(f"Epoch {epoch}\\n Current loss {loss.item()}\\n dist {d.mean().item():.6f} same {d[lab.view(-1) == 0].mean().item():.6f} acc {((d > 1).float() == lab.view(-1)).float().mean().item()}")
            it += 10; counter.append(it); hist.append(loss.item())
print(counter, hist)
trip = nn.TripletMarginLoss(margin=1.0)
for a, b, lab in DataLoader(Pairs(), batch_size=8):
    opt.zero_grad(); fa = net.forward_once(a); fp = net.forward_once(b); fn = net.forward_once(a.flip(0) if False else a * -1)
    loss = trip(fa, fp, fn); loss.backward(); opt.step(); print("triplet", loss.item(), (fa - fp).norm(dim=1).mean().item())
"""
    + END
)
# Masks, negative samples, policies, GANs, overlaps, correlations, an interrupt.
TUTORIALS = (
    HEAD
    + """
torch.manual_seed(0); random.seed(0); np.random.seed(0)
atexit.register(lambda: print("bye"))
# 1 masked tagger with hand masks
g = torch.Generator().manual_seed(3)
tok = torch.randint(1, 20, (30, 7), generator=g); lens = torch.randint(2, 8, (30,), generator=g); tags = torch.randint(0, 4, (30, 7), generator=g)
emb = nn.Embedding(20, 8); lin = nn.Linear(8, 4); trans = nn.Parameter(torch.zeros(4, 4))
class Tagger(nn.Module):
    def __init__(self): super().__init__(); self.emb = emb; self.rnn = nn.LSTM(8, 8, batch_first=True); self.lin = lin; self.trans = trans
    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.emb(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=7)
        return self.lin(out)
def crf_nll(em, tags, mask, trans):
    B, T, K = em.shape
    score = em[:, 0].gather(1, tags[:, :1]).squeeze(1); alpha = em[:, 0]
    for t in range(1, T):
        s = em[:, t].gather(1, tags[:, t:t + 1]).squeeze(1) + trans[tags[:, t - 1], tags[:, t]]
        score = score + s * mask[:, t]
        nxt = torch.logsumexp(alpha.unsqueeze(2) + trans.unsqueeze(0) + em[:, t].unsqueeze(1), dim=1)
        m = mask[:, t].unsqueeze(1); alpha = nxt * m + alpha * (1 - m)
    return (torch.logsumexp(alpha, dim=1) - score)
model = Tagger(); opt = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(2):
    tot_tok = tot_ok = 0; ep = 0.0
    for x, l, t in DataLoader(TensorDataset(tok, lens, tags), batch_size=8, shuffle=True):
        mask = (torch.arange(7)[None, :] < l[:, None]).float()
        em = model(x, l)
        nll = crf_nll(em, t, mask, model.trans)
        loss = nll.sum() / mask.sum() if epoch else nll.mean()
        ce = F.cross_entropy(em.reshape(-1, 4), t.reshape(-1), reduction="none").view(x.size(0), -1)
        masked = (ce * mask).sum() / mask.sum(); per = ((ce * mask).sum(1) / mask.sum(1)).mean()
        opt.zero_grad(); (loss + masked + per).backward(); gn = nn.utils.clip_grad_norm_(model.parameters(), 1.0); opt.step()
        ok = ((em.argmax(-1) == t) * mask).sum(); tot_ok += ok.item(); tot_tok += mask.sum().item(); ep += loss.item()
        lp = -F.log_softmax(em, -1).gather(2, t.unsqueeze(-1)).squeeze(-1); sel = lp[mask.bool()].mean()
        print("tag", loss.item(), masked.item(), per.item(), float(gn), sel.item(), em[mask.bool()].size(0))
    print(f"epoch {epoch} {ep:.5f} acc {tot_ok / tot_tok:.5f} {tot_tok}")
# 2 word2vec negative sampling
class SkipGram(nn.Module):
    def __init__(self, V=20, D=6): super().__init__(); self.i = nn.Embedding(V, D); self.o = nn.Embedding(V, D)
    def forward(self, c, p, n):
        c = self.i(c); pos = F.logsigmoid((c * self.o(p)).sum(1)); neg = F.logsigmoid(-torch.bmm(self.o(n), c.unsqueeze(2)).squeeze(2)).sum(1)
        return -(pos + neg).mean()
c = torch.randint(0, 20, (40,), generator=g); p = torch.randint(0, 20, (40,), generator=g); freq = torch.rand(20, generator=g) ** 0.75
def collate(batch):
    a, b = zip(*batch); return torch.stack(a), torch.stack(b)
sg = SkipGram(); o = torch.optim.SGD(sg.parameters(), lr=0.5)
negs = torch.randint(0, 20, (40, 5), generator=g)
hist = []
for epoch in range(2):
    bar = DataLoader(TensorDataset(c, p, negs), batch_size=9, shuffle=True)
    for a, b, n in bar:
        o.zero_grad(); loss = sg(a, b, n); loss.backward(); o.step(); hist.append(loss.item())
        loss.item()
        print("w2v", loss.item(), np.mean(hist[-3:]))
sim = F.cosine_similarity(sg.i.weight[0], sg.i.weight[1], dim=0); print("sim", sim.item())
# 3 negative sampling in the loop
for a, b, n in DataLoader(TensorDataset(c, p, negs), batch_size=8):
    neg = torch.randint(0, 20, (a.size(0), 5)); o.zero_grad(); loss = sg(a, b, neg); loss.backward(); o.step(); print("w2v rand", loss.item())
if True:
    for a, b, n in DataLoader(TensorDataset(c, p, negs), batch_size=8):
        neg = torch.multinomial(freq, a.size(0) * 5, replacement=True).view(a.size(0), -1); o.zero_grad(); loss = sg(a, b, neg); loss.backward(); o.step(); print("w2v multi", loss.item())
# 4 policy gradient without DataLoader
pol = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)); po = torch.optim.Adam(pol.parameters(), lr=1e-2)
buf = deque(maxlen=50)
for ep in range(3):
    s = torch.zeros(3); logps, rews = [], []
    for t in range(6):
        d = torch.distributions.Categorical(logits=pol(s)); act = d.sample(); logps.append(d.log_prob(act)); r = float(act) - 0.3 * float(s.sum()); rews.append(r); s = s * 0.5 + torch.randn(3) * 0.1 + act * 0.2; buf.append((s, act, r))
    R, rets = 0, []
    for r in rews[::-1]: R = r + 0.9 * R; rets.insert(0, R)
    rets = torch.tensor(rets); rets = (rets - rets.mean()) / (rets.std() + 1e-8)
    loss = torch.stack([-l * q for l, q in zip(logps, rets)]).sum(); po.zero_grad(); loss.backward(); po.step()
    print("rl", ep, loss.item(), sum(rews), len(buf), [int(b[1]) for b in random.sample(list(buf), 3)])
# 5 actor critic over a loader of transitions
S = torch.randn(32, 3, generator=g); A = torch.randint(0, 2, (32,), generator=g); RR = torch.randn(32, generator=g)
val = nn.Linear(3, 1); both = torch.optim.Adam([*pol.parameters(), *val.parameters()], lr=1e-2)
for s, a, r in DataLoader(TensorDataset(S, A, RR), batch_size=12, shuffle=True):
    v = val(s).squeeze(-1); adv = (r - v.detach()); adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    lg = pol(s); d = torch.distributions.Categorical(logits=lg); lp = d.log_prob(a); ent = d.entropy().mean()
    lp2 = F.log_softmax(lg, -1)[torch.arange(len(a)), a]
    pl = -(lp * adv).mean() ; vl = 0.5 * (r - v).pow(2).mean(); loss = pl + vl - 0.01 * ent
    both.zero_grad(); loss.backward(); both.step()
    print("ac", loss.item(), pl.item(), vl.item(), ent.item(), (-(lp2 * adv).sum() / len(s)).item(), adv.abs().max().item(), (v > 0).float().mean().item())
# 6 GAN
G = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)); D = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Sigmoid()); gO = torch.optim.Adam(G.parameters(), lr=1e-2); dO = torch.optim.Adam(D.parameters(), lr=1e-2); bce = nn.BCELoss()
fixed = torch.randn(5, 4)
for i, (real, _) in enumerate(DataLoader(TensorDataset(S, A), batch_size=10)):
    b = real.size(0); label = torch.full((b,), 1.0); dO.zero_grad(); out = D(real).view(-1); eR = bce(out, label); eR.backward(); Dx = out.mean().item()
    noise = torch.randn(b, 4); fake = G(noise); label.fill_(0.0); out = D(fake.detach()).view(-1); eF = bce(out, label); eF.backward(); g1 = out.mean().item(); eD = eR + eF; dO.step()
    gO.zero_grad(); label.fill_(1.0); out = D(fake).view(-1); eG = bce(out, label); eG.backward(); g2 = out.mean().item(); gO.step()
    print('[%d/%d]\\tLoss_D: %.4f\\tLoss_G: %.4f\\tD(x): %.4f\\tD(G(z)): %.4f / %.4f' % (i, 4, eD.item(), eG.item(), Dx, g1, g2))
    with torch.no_grad(): print("fixed", G(fixed).mean().item())
# 7 wgan
for i, (real, _) in enumerate(DataLoader(TensorDataset(S, A), batch_size=10)):
    dl = -torch.mean(D(real)) + torch.mean(D(G(torch.randn(real.size(0), 4)).detach())); dO.zero_grad(); dl.backward(); dO.step()
    for q in D.parameters(): q.data.clamp_(-0.1, 0.1)
    gl = -torch.mean(D(G(torch.randn(real.size(0), 4)))); gO.zero_grad(); gl.backward(); gO.step(); print("wgan", dl.item(), gl.item())
# 8 dice / focal / center loss
seg = nn.Conv2d(1, 1, 3, padding=1); so = torch.optim.SGD(seg.parameters(), lr=0.1); img = torch.randn(20, 1, 6, 6, generator=g); msk = (img > 0).float()
def dice(p, t, smooth=1.0): p, t = p.contiguous().view(-1), t.contiguous().view(-1); inter = (p * t).sum(); return 1 - (2.0 * inter + smooth) / (p.sum() + t.sum() + smooth)
def dice_each(p, t): inter = (p * t).sum(dim=2).sum(dim=2); return (1 - (2 * inter + 1) / (p.sum(dim=2).sum(dim=2) + t.sum(dim=2).sum(dim=2) + 1)).mean()
def focal(lg, t): b = F.binary_cross_entropy_with_logits(lg, t, reduction="none"); pt = torch.exp(-b); return (0.25 * (1 - pt) ** 2 * b).mean()
for x, m in DataLoader(TensorDataset(img, msk), batch_size=6):
    lg = seg(x); pr = torch.sigmoid(lg); loss = dice(pr, m) + dice_each(pr, m) + focal(lg, m); so.zero_grad(); loss.backward(); so.step()
    iou = ((pr > .5) & (m > .5)).sum().item() / ((pr > .5) | (m > .5)).sum().item()
    print("seg", loss.item(), dice(pr, m).item(), iou, math.sqrt(((pr - m) ** 2).mean().item()), torch.sqrt(((pr - m) ** 2).mean()).item())
# 9 rmse/r2/pearson loss, autoencoder with sparsity, uncertainty weights by hand
ae = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 3)); ao = torch.optim.SGD(ae.parameters(), lr=0.1); logv = torch.zeros(2, requires_grad=True)
for (x,) in DataLoader(TensorDataset(S), batch_size=10):
    h = ae[1](ae[0](x)); y = ae[2](h); rho = h.mean(0); kl = (0.05 * torch.log(0.05 / rho) + 0.95 * torch.log(0.95 / (1 - rho))).sum()
    rm = torch.sqrt(torch.mean((y - x) ** 2)); yc, xc = y - y.mean(), x - x.mean(); pear = 1 - (yc * xc).sum() / (yc.pow(2).sum().sqrt() * xc.pow(2).sum().sqrt())
    loss = rm * torch.exp(-logv[0]) + logv.sum() + 0.1 * kl + pear * torch.exp(-logv[1]); ao.zero_grad(); loss.backward(); ao.step(); logv.data -= 0.1 * logv.grad; logv.grad = None
    print("ae", loss.item(), rm.item(), kl.item(), pear.item(), logv.tolist())
try:
    for i, (x,) in enumerate(DataLoader(TensorDataset(S), batch_size=10)):
        ao.zero_grad(); l = (ae(x) - x).abs().mean(); l.backward(); ao.step()
        if i == 1: raise KeyboardInterrupt
except KeyboardInterrupt: print("interrupted", l.item())
"""
    + END
)
# Statistics over the rows of a batch, and rows compared with each other.
COMPARED = (
    HEAD
    + """
torch.manual_seed(0)
X = torch.randn(40, 6); Y = torch.randint(0, 3, (40,))
def nt_xent(z1, z2, t=0.5):
    z = F.normalize(torch.cat([z1, z2], dim=0), dim=1); n = z1.size(0)
    sim = z @ z.t() / t
    sim = sim.masked_fill(torch.eye(2 * n, dtype=torch.bool), -1e9)
    target = torch.cat([torch.arange(n) + n, torch.arange(n)])
    return F.cross_entropy(sim, target)
def clip(z1, z2):
    z1, z2 = F.normalize(z1, dim=-1), F.normalize(z2, dim=-1)
    logits = z1 @ z2.T * 10
    labels = torch.arange(len(z1))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
def clip2(z1, z2):
    logits = torch.matmul(z1, z2.transpose(0, 1)); return F.cross_entropy(logits, torch.arange(logits.shape[0]))
def einsum(z1, z2): return F.cross_entropy(torch.einsum("nd,md->nm", z1, z2), torch.arange(len(z1)))
def supcon(z1, y):
    mask = torch.eq(y.view(-1, 1), y.view(1, -1)).float(); return (mask * torch.cdist(z1, z1)).mean()
def cosine(z1, z2): return F.cosine_similarity(z1.unsqueeze(1), z2.unsqueeze(0), dim=2).mean()
def barlow(z1, z2):
    n = z1.size(0)
    a = (z1 - z1.mean(0)) / z1.std(0); b = (z2 - z2.mean(0)) / z2.std(0)
    c = a.T @ b / n
    return (torch.diagonal(c) - 1).pow(2).sum() + 0.01 * (c - torch.diag(torch.diagonal(c))).pow(2).sum()
def vicreg(z1, z2):
    s = torch.sqrt(z1.var(dim=0) + 1e-4); return F.mse_loss(z1, z2) + torch.mean(F.relu(1 - s))
def inbatch(z1, z2): return (z1 - z2.roll(1, 0)).pow(2).mean()
def flipped(z1, z2): return (z1 - z2.flip(0)).pow(2).mean()
for f in (barlow, vicreg, inbatch, flipped, nt_xent, clip, clip2, einsum, supcon, cosine):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)); opt = torch.optim.SGD(net.parameters(), lr=0.1)
    try:
        for x, y in DataLoader(TensorDataset(X, Y), batch_size=11, shuffle=True):
            z1, z2 = net(x), net(x * 1.1)
            loss = f(z1, y if f is supcon else z2)
            opt.zero_grad(); loss.backward(); opt.step(); print(f.__name__, loss.item(), float(sum(p.detach().double().sum() for p in net.parameters())))
    except Exception as e: print(f.__name__, type(e).__name__, str(e)[:90])
"""
    + END
)


def ended_as_one(work, text, layout):
    """What one device prints of *text*, and what 2 ranks print in *layout*."""
    lines, _ = plain(work, text)
    run = Run(work / "run", launch(2), Wishes(layout=Layout.parse(layout)))
    ranks = run.ranks(submitit(2), run.script(text), str(work / "mine.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert ranks[1].out == ""
    return lines, ranks[0].out.splitlines()


# Batches that are fetched before the backward of another, which the ranks share out unequally.
FETCHED = (
    HEAD
    + """
torch.manual_seed(3)
first, second = (TensorDataset(torch.randn(rows, 4), torch.randn(rows, 2)) for rows in (11, 14))
model = nn.Linear(4, 2)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
def by_hand(x, y): return ((model(x) - y) ** 2).mean()
def of_torch(x, y): return F.mse_loss(model(x), y)
def step(kind, loss):
    optim.zero_grad(); loss.backward(); optim.step()
    print(kind, loss.item(), *[p.grad.norm().item() for p in model.parameters()])
for kind in (by_hand, of_torch):
    for x, y in list(DataLoader(first, batch_size=3)):
        step(f"listed {kind.__name__}", kind(x, y))
    for a, b in zip(DataLoader(first, batch_size=3), DataLoader(second, batch_size=4)):
        step(f"zipped {kind.__name__}", kind(*a) + 2 * kind(*b))
    step("mixed", by_hand(*a) + of_torch(*b))
"""
    + END
)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        pytest.param(AVERAGES, "", id="averages"),
        pytest.param(METRICS, "", id="metrics"),
        pytest.param(METRICS, "fsdp", id="metrics-fsdp"),
        pytest.param(MIXED, "", id="mixed"),
        pytest.param(FETCHED, "", id="fetched"),
        pytest.param(VAE, "", id="vae"),
        pytest.param(DISTILLED, "", id="distilled"),
        pytest.param(SIAMESE, "", id="siamese"),
        pytest.param(TUTORIALS, "", id="tutorials"),
        pytest.param(TUTORIALS, "fsdp", id="tutorials-fsdp"),
    ],
)
def test_tutorials_print_the_numbers_of_one_device(work, text, layout):
    lines, mine = ended_as_one(work, text, layout)
    assert len(mine) == len(lines)
    for line, expected in zip(mine, lines, strict=True):
        same(line, expected)


def test_rows_compared_with_each_other_are_those_of_one_device_or_refused(work):
    lines, mine = ended_as_one(work, COMPARED, "")
    kept = [line for line in lines if line.split()[0] in ("barlow", "vicreg", "inbatch", "flipped")]
    refused = mine[len(kept) :]
    for line, expected in zip(mine[: len(kept)], kept, strict=True):
        same(line, expected)
    assert [line.split()[0] for line in refused] == ["nt_xent", "clip", "clip2", "einsum", "supcon", "cosine"]
    assert all("the script compares the rows of a batch with each other (contrastive)" in line for line in refused)


# The last batch has two rows, one for each rank.
SQUEEZED = (
    HEAD
    + """
torch.manual_seed(7)
X, Y = torch.randn(23, 4), (torch.rand(23) > 0.5).float()
model = nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
hits = n = 0
for step, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), batch_size=7)):
    out = model(x).squeeze()
    loss = F.binary_cross_entropy_with_logits(out, y) + (out - y.squeeze()).abs().sum() / len(out)
    opt.zero_grad(); loss.backward(); opt.step()
    right = ((out > 0) == (y > 0.5)).squeeze()
    for i in range(len(y)):
        hits += right[i].item()
    print(loss.item(), hits, tuple(torch.squeeze(x[:, :1]).shape), out[x[:, 0] > 0].squeeze().sum().item())
torch.save(list(model.parameters()), sys.argv[1])
"""
)


def test_rows_are_not_squeezed_away_on_a_rank_that_has_one_only(work):
    same_run(work, SQUEEZED, *plain(work, SQUEEZED), 2)
