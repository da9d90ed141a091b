"""More tasks, as in `composed_tasks.py`: several inputs a row, several models, several losses, sequences."""

from composed_tasks import Task

TASKS = {}
TASKS["pairs"] = Task(
    data="""
X, G = torch.randn(ROWS, 6), torch.randint(0, 4, (ROWS,))
class Pairs(Dataset):
    def __init__(self): self.other = np.random.RandomState(1).permutation(ROWS)
    def __len__(self): return ROWS
    def __getitem__(self, i):
        j = int(self.other[i])
        return <<X[i], X[j], (G[i] == G[j]).to(X.dtype)||(X[i], X[j]), (G[i] == G[j]).to(X.dtype)>>
data = Pairs()""",
    taken="a, b, y",
    model="""
class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 12), <<nn.ReLU()||nn.BatchNorm1d(12), nn.ReLU()||nn.LayerNorm(12), nn.GELU()>>, nn.Linear(12, 8))
        self.head = nn.Linear(8, 1)
    def embed(self, x):
        return self.net(x)
    def forward(self, a, b):
        <<return self.net(a), self.net(b)||return self.embed(a), self.embed(b)||both = self.net(torch.cat([a, b]))
        return both[: len(a)], both[len(a) :]||u, v = self.net(torch.cat([a, b], dim=0)).chunk(2)
        return u, v>>
model = Siamese()""",
    forward="""
<<u, v = model(a, b)||u, v = model.embed(a), model.embed(b)>>
d = <<F.pairwise_distance(u, v)||(u - v).pow(2).sum(1).add(1e-9).sqrt()||torch.norm(u - v + 1e-6, dim=1)>>
out = d.detach()
loss = <<(y * d.pow(2) + (1 - y) * F.relu(1.0 - d).pow(2)).mean()||torch.mean((1 - y) * torch.clamp(2.0 - d, min=0.0) ** 2 + y * d**2)||F.cosine_embedding_loss(u, v, 2 * y - 1, margin=0.2)||F.binary_cross_entropy_with_logits(model.head((u - v).abs()).squeeze(-1), y)||F.hinge_embedding_loss(d, (2 * y - 1))||(y * d).sum() / y.sum().clamp(min=1) + (F.relu(1 - d) * (1 - y)).sum() / (1 - y).sum().clamp(min=1)||F.mse_loss(F.cosine_similarity(u, v), y)>>""",
    count="<<a.size(0)||len(y)||y.size(0)||len(a)>>",
    metric=(
        """<<
stats["near"] += ((d < 0.8) == (y > 0.5)).sum().item()
||
kept["d"] += d.tolist()
kept["t"] += y.tolist()
||
kept["d"].append(d.detach().cpu().numpy())
||
stats["gap"] = (d[y == 1].mean() - d[y == 0].mean()).item() if (y == 1).any() and (y == 0).any() else 0.0
>>""",
        """
if kept["d"]:
    every = np.concatenate([np.atleast_1d(part) for part in kept["d"]])
    print("distances", every.shape, every.mean(), every.argmax())
if kept["t"]:
    print("auc", roc_auc_score(kept["t"], [-v for v in kept["d"]]) if len(set(kept["t"])) > 1 else 0.5)""",
    ),
    judged="((d < 0.8) == (y > 0.5)).sum().item()",
)
TASKS["triplets"] = Task(
    data="""
X, G = torch.randn(ROWS, 6), torch.arange(ROWS) % 4
class Triplets(Dataset):
    def __len__(self): return ROWS - 4
    def __getitem__(self, i):
        <<return X[i], X[(i + 4) % ROWS], X[(i + 1 + i % 3) % ROWS]||return {"anchor": X[i], "positive": X[i + 4], "negative": X[i + 2]}>>
data = Triplets()""",
    taken="a, p, q",
    model="""
model = nn.Sequential(nn.Linear(6, 12), <<nn.ReLU()||nn.BatchNorm1d(12), nn.ReLU()>>, nn.Linear(12, 8))""",
    forward="""
<<
za, zp, zn = model(a), model(p), model(q)
||
za, zp, zn = model(torch.cat([a, p, q])).chunk(3)
||
z = model(torch.cat((a, p, q), 0))
za, zp, zn = torch.split(z, len(a))
||
za, zp, zn = (F.normalize(model(v), dim=1) for v in (a, p, q))
||
z = model(torch.stack([a, p, q], 1).view(-1, 6)).view(-1, 3, 8)
za, zp, zn = z.unbind(1)
>>
out = (za - zp).pow(2).sum(1).detach()
dp, dn = (za - zp).pow(2).sum(1), (za - zn).pow(2).sum(1)
loss = <<F.triplet_margin_loss(za, zp, zn, margin=0.5)||nn.TripletMarginLoss(margin=1.0, p=2)(za, zp, zn)||F.relu(dp - dn + 0.5).mean()||F.softplus(dp - dn).mean()||F.relu(dp - dn + 0.5).sum() / ((dp - dn + 0.5) > 0).sum().clamp(min=1)||F.margin_ranking_loss(dn, dp, torch.ones_like(dp), margin=0.3)||F.triplet_margin_with_distance_loss(za, zp, zn, distance_function=lambda s, t: 1 - F.cosine_similarity(s, t))||-F.logsigmoid((za * zp).sum(1) - (za * zn).sum(1)).mean()>>""",
    count="<<a.size(0)||len(a)||za.size(0)>>",
    metric=(
        'stats["nearer"] += (dp < dn).sum().item()\nkept["v"].append((dn - dp).mean().item())',
        'print("gaps", np.sum(kept["v"]))',
    ),
    judged="(dp < dn).sum().item()",
)
TASKS["multitask"] = Task(
    data="""
X, Y, V = torch.randn(ROWS, 6), torch.randint(0, 4, (ROWS,)), torch.randn(ROWS)
data = <<TensorDataset(X, Y, V)||[{"x": X[i], "targets": {"class": Y[i], "value": V[i]}} for i in range(ROWS)]>>""",
    taken="x, y, v",
    model="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8))
        self.heads = nn.ModuleDict({"class": nn.Linear(8, 4), "value": nn.Linear(8, 1), "var": nn.Linear(8, 1)})
        self.log_vars = nn.Parameter(torch.zeros(2))
    def forward(self, x):
        z = self.body(x)
        return {name: head(z) for name, head in self.heads.items()}
model = Net()""",
    forward="""
outs = model(x)
out = outs["class"]
value, logvar = outs["value"].<<squeeze(1)||squeeze(-1)||view(-1)||flatten()>>, outs["var"][:, 0]
losses = {
    "class": F.cross_entropy(out, y),
    "value": <<F.mse_loss(value, v)||F.l1_loss(value, v)||(0.5 * (torch.exp(-logvar) * (v - value) ** 2 + logvar)).mean()||F.gaussian_nll_loss(value, v, logvar.exp())||F.poisson_nll_loss(value, v.abs())||F.huber_loss(value, v, reduction="sum") / v.numel()>>,
}
<<
weights = {"class": 1.0, "value": 0.3}
loss = sum(weights[k] * losses[k] for k in losses)
||
loss = sum(losses.values())
||
loss = torch.stack(list(losses.values())).sum()
||
loss = sum(torch.exp(-model.log_vars[i]) * l + model.log_vars[i] for i, l in enumerate(losses.values()))
||
loss = losses["class"] / losses["class"].detach() + losses["value"] / losses["value"].detach()
>>
for name, each in losses.items():
    <<stats["of_" + name] += each.item() * y.size(0)||kept[name].append(each.detach())||stats[name] = 0.9 * stats[name] + 0.1 * float(each)>>""",
    count="<<x.size(0)||len(x)||v.shape[0]||len(value)>>",
    metric=(
        "",
        'print("parts", {k: round(float(sum(map(float, v))), 5) for k, v in kept.items() if k in ("class", "value")})',
    ),
    judged="(out.argmax(1) == y).sum().item()",
)
TASKS["teacher"] = Task(
    data="""
X, Y = torch.randn(ROWS, 6), torch.randint(0, 4, (ROWS,))
data = TensorDataset(X, Y)""",
    taken="x, y",
    model="""
def make(width):
    return nn.Sequential(nn.Linear(6, width), <<nn.ReLU()||nn.BatchNorm1d(width), nn.ReLU()>>, nn.Linear(width, 4))
model = make(8)
<<
teacher = make(16).eval()
for p in teacher.parameters():
    p.requires_grad_(False)
||
teacher = copy.deepcopy(model)
for p in teacher.parameters():
    p.detach_()
||
teacher = make(16)
>>""",
    forward="""
with torch.<<no_grad()||inference_mode()>>:
    soft = teacher(<<x||x + 0.1 * torch.randn_like(x)>>)
soft = soft.clone()
out = model(x)
T = 3.0
kd = <<F.kl_div(F.log_softmax(out / T, 1), F.softmax(soft / T, 1), reduction="batchmean") * T * T||F.mse_loss(out, soft)||-(F.softmax(soft / T, dim=1) * F.log_softmax(out / T, dim=1)).sum(dim=1).mean()||nn.KLDivLoss(reduction="sum")(F.log_softmax(out / T, 1), F.softmax(soft / T, 1)) / x.size(0)||(1 - F.cosine_similarity(out, soft)).mean()>>
loss = 0.5 * F.cross_entropy(out, y) + 0.5 * kd""",
    count="<<x.size(0)||len(x)||y.size(0)>>",
    behind="""<<
if sum(p.numel() for p in teacher.parameters()) == sum(p.numel() for p in model.parameters()):
    with torch.no_grad():
        for t, s in zip(teacher.parameters(), model.parameters()):
            t.data.mul_(0.9).add_(s.data, alpha=0.1)
||
>>""",
    metric=(
        "confusion[y.numpy(), out.argmax(1).numpy()] += 1",
        'model.eval(), teacher.eval()\nprint("alike", (teacher(X).argmax(1) == model(X).argmax(1)).sum().item(), confusion.tolist())',
    ),
    judged="(out.argmax(1) == y).sum().item()",
)
TASKS["gan"] = Task(
    data="""
X = torch.randn(ROWS, 6) * 0.5 + 1
data = <<TensorDataset(X)||[(row, 0) for row in X]>>""",
    taken="x",
    model="""
G = nn.Sequential(nn.Linear(3, 8), <<nn.ReLU()||nn.BatchNorm1d(8), nn.ReLU()>>, nn.Linear(8, 6))
D = nn.Sequential(<<nn.Linear(6, 8)||nn.utils.spectral_norm(nn.Linear(6, 8))>>, nn.LeakyReLU(0.2), nn.Linear(8, 1))
model = nn.ModuleDict({"G": G, "D": D})
opt_d = torch.optim.Adam(D.parameters(), lr=1e-2, betas=(0.5, 0.9), eps=1e-3)""",
    forward="""
<<noise = torch.randn(x.size(0), 3)||noise = torch.randn(len(x), 3, device=x.device)||noise = torch.as_tensor(np.random.normal(0, 1, (x.shape[0], 3)), dtype=x.dtype)>>
fake = G(noise)
opt_d.zero_grad()
<<
real_score, fake_score = D(x), D(fake.detach())
loss_d = <<F.binary_cross_entropy_with_logits(real_score, torch.ones_like(real_score)) + F.binary_cross_entropy_with_logits(fake_score, torch.zeros_like(fake_score))||F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()||fake_score.mean() - real_score.mean() + 0.01 * (real_score**2).mean()>>
loss_d.backward()
||
valid, wrong = torch.ones(x.size(0), 1), torch.zeros(x.size(0), 1)
real_loss = F.mse_loss(D(x), valid)
fake_score = D(fake.detach())
loss_d = (real_loss + F.mse_loss(fake_score, wrong)) / 2
loss_d.backward()
||
label = torch.full((x.size(0),), 1.0).to(x.dtype)
real_loss = F.binary_cross_entropy(D(x).sigmoid().view(-1), label)
real_loss.backward()
label.fill_(0.0)
fake_score = D(fake.detach())
fake_loss = F.binary_cross_entropy(torch.sigmoid(fake_score).view(-1), label)
fake_loss.backward()
loss_d = real_loss + fake_loss
||
fake_score = D(fake.detach())
eps = torch.rand(x.size(0), 1)
mixed = (eps * x + (1 - eps) * fake.detach()).requires_grad_(True)
mixed_score = D(mixed)
slope = torch.autograd.grad(mixed_score, mixed, torch.ones_like(mixed_score), create_graph=True, retain_graph=True)[0]
loss_d = fake_score.mean() - D(x).mean() + ((slope.view(slope.size(0), -1).norm(2, dim=1) - 1) ** 2).mean()
loss_d.backward()
>>
opt_d.step()
stats["d"] += loss_d.item()
out = D(fake)
loss = <<F.binary_cross_entropy_with_logits(out, torch.ones_like(out))||-out.mean()||F.softplus(-out).mean()>>""",
    count="<<x.size(0)||len(x)||fake.size(0)>>",
    metric=(
        'stats["fooled"] += (out > 0).sum().item()\nkept["fake"].append(fake.detach().mean(0))',
        'print("fake", torch.stack(kept["fake"]).mean(0).tolist())',
    ),
)
TASKS["two_loaders"] = Task(
    data="""
X, Y, U = torch.randn(ROWS, 6), torch.randint(0, 4, (ROWS,)), torch.randn(3 * ROWS, 6)
data, unlabelled = TensorDataset(X, Y), TensorDataset(U)
free = DataLoader(unlabelled, batch_size=<<BATCH||2 * BATCH||BATCH + 1>>, shuffle=True)""",
    taken="x, y, u",
    model="""
model = nn.Sequential(nn.Linear(6, 12), <<nn.ReLU()||nn.BatchNorm1d(12), nn.ReLU()||nn.Dropout(0.1)>>, nn.Linear(12, 4))""",
    forward="""
<<
out = model(x)
free_out = model(u)
||
both = model(torch.cat([x, u]))
out, free_out = both[: x.size(0)], both[x.size(0) :]
||
both = model(torch.cat([x, u], 0))
out, free_out = both.split([len(x), len(u)])
>>
loss = F.cross_entropy(out, y)
<<
p = free_out.softmax(1)
loss = loss - 0.1 * (p * torch.log(p + 1e-6)).sum(1).mean() * -1
||
with torch.no_grad():
    guess = model(u + 0.05 * torch.randn_like(u)).softmax(-1)
    top, labels = guess.max(-1)
    mask = top.ge(0.3).to(x.dtype)
loss = loss + 0.5 * (F.cross_entropy(free_out, labels, reduction="none") * mask).mean()
stats["mask"] += mask.mean().item()
||
loss = loss + 0.2 * F.mse_loss(free_out.softmax(1), model(u * 0.9).softmax(1).detach())
||
gap = out.mean(0) - free_out.mean(0)
loss = loss + 0.1 * gap.dot(gap)
>>""",
    count="<<x.size(0)||len(x) + 0||y.size(0)>>",
    metric=(
        'stats["u"] += <<u.size(0)||len(u)||len(free_out)>>\nstats["right"] += (out.argmax(1) == y).sum().item()',
        "",
    ),
    judged="(out.argmax(1) == y).sum().item()",
)
