"""Whole tasks as people write them: data, a model and its losses, with choices in `<<this||that>>`, innermost first.

A task knows the names that the others agree on: `batch` of the loader, `model`, `loss`, `out` (numbers for each row), `n`.
Its lines ahead of the loss work in a loop and in a function alike.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """The lines of a task: its data, what a batch is, the model, the lines to the loss, how rows are counted."""

    data: str
    taken: str
    model: str
    forward: str
    count: str
    metric: tuple[str, str] = ("", "")
    setup: str = ""
    behind: str = ""
    collate: bool = False
    judged: str = ""


_CLASSES = (
    """<<
labels_seen.extend(y.tolist())
preds_seen.extend(out.argmax(1).tolist())
||
preds_seen += list(out.argmax(dim=-1).cpu().numpy())
labels_seen += list(y.cpu().numpy())
||
kept["p"].append(out.detach().softmax(1).cpu())
kept["y"].append(y.cpu())
||
stats["right"] += (out.argmax(1) == y).sum().item()
stats["of"] += y.size(0)
||
for k in (1, 2, 3):
    found = out.topk(k, 1, True, True)[1].t()
    stats[f"top{k}"] += found.eq(y.view(1, -1).expand_as(found)).reshape(-1).sum(0).item() * 100.0
stats["of"] += len(y)
||
for t, p in zip(y.view(-1), out.argmax(1).view(-1)):
    confusion[t.long(), p.long()] += 1
||
confusion += confusion_matrix(y.numpy(), out.argmax(1).numpy(), labels=[0, 1, 2, 3])
||
for c in range(4):
    stats[f"right{c}"] += ((out.argmax(1) == y) & (y == c)).sum().item()
    stats[f"of{c}"] += (y == c).sum().item()
||
correct = out.detach().argmax(1).eq(y).cpu().numpy()
kept["c"].append(correct.mean())
stats["of"] += correct.size
||
top = accuracy(out, y, topk=(1, 3))
kept["top1"].append(top[0].item())
stats["top3"] += top[1].item() * y.size(0)
>>""",
    """
if preds_seen:
    print("seen", len(preds_seen), [int(p) for p in preds_seen[:7]], f1_score(labels_seen, preds_seen, average="macro"))
if kept["p"]:
    every, truth = torch.cat(kept["p"]), torch.cat(kept["y"])
    print("every", tuple(every.shape), every[range(len(truth)), truth].mean().item(), (every.argmax(1) == truth).tolist()[:9])
if confusion.sum():
    print("confusion", [[int(v) for v in row] for row in confusion], float(confusion.diagonal().sum() / confusion.sum()))
for name in ("c", "top1"):
    if kept[name]:
        print(name, np.mean(kept[name]), len(kept[name]))""",
)

TASKS = {}
TASKS["table"] = Task(
    data="""
X, Y = torch.randn(ROWS, 6), torch.randint(0, 4, (ROWS,))
<<
data = TensorDataset(X, Y)
||
data = ConcatDataset([TensorDataset(X[:9], Y[:9]), TensorDataset(X[9:], Y[9:])])
||
class Rows(Dataset):
    def __init__(self, x, y): self.x, self.y, self.rng = x.numpy(), y.numpy(), <<np.random.default_rng(3)||np.random.RandomState(3)>>
    def __len__(self): return len(self.x)
    def __getitem__(self, i):
        row = self.x[i] + 1e-13 * self.rng.<<standard_normal(6)||normal(0, 1, 6)||normal()>>
        return torch.as_tensor(row, dtype=torch.get_default_dtype()), int(self.y[i])
data = Rows(X, Y)
||
class Rows(Dataset):
    def __len__(self): return ROWS
    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        return X[i] * (1 if rng.random() < 0.7 else 0.5), Y[i]
data = Rows()
>>""",
    taken="x, y",
    model="""<<
class Block(nn.Module):
    def __init__(self, width, drop=0.0):
        super().__init__()
        self.net = nn.Sequential(<<nn.LayerNorm(width)||nn.BatchNorm1d(width)||nn.GroupNorm(2, width)>>, nn.Linear(width, width), nn.ReLU(), nn.Dropout(drop), nn.Linear(width, width))
    def forward(self, x):
        return x + self.net(x)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = <<nn.Sequential(*[Block(8) for _ in range(2)])||nn.ModuleList([Block(8, 0.1) for _ in range(3)])>>
        self.head = nn.Linear(8, 4)
    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)
model = Net()
||
norm = <<nn.utils.weight_norm||nn.utils.parametrizations.weight_norm||nn.utils.spectral_norm||nn.utils.parametrizations.spectral_norm>>
model = nn.Sequential(norm(nn.Linear(6, 12)), <<nn.LeakyReLU(0.2)||nn.SiLU()>>, norm(nn.Linear(12, 8)), nn.PReLU(), nn.Linear(8, 4))
||
model = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10<<||, momentum=None||, affine=False||, track_running_stats=False>>), nn.ReLU(), nn.Linear(10, 8), nn.<<GroupNorm(4, 8)||LayerNorm(8, elementwise_affine=False)||RMSNorm(8)>>, nn.Hardswish(), nn.Linear(8, 4))
||
class Head(nn.Module):
    def __init__(self, scale=4.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.w = nn.Parameter(torch.randn(4, 8))
        self.scale = <<scale||nn.Parameter(torch.tensor(scale))>>
    def forward(self, x):
        return self.scale * F.linear(F.normalize(self.body(x)), F.normalize(self.w))
model = Head()
||
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Parameter(torch.randn(6, 8) / 3)
        self.place = nn.Parameter(torch.zeros(1, 6, 8))
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
    def forward(self, x):
        t = x.unsqueeze(-1) * self.embed + self.place
        t = torch.cat([self.cls.expand(x.size(0), -1, -1), t], dim=1)
        a, w = self.attend(t, t, t, need_weights=<<True||False>>)
        return self.head(self.norm(t + a)[:, 0])
model = Attention()
>>""",
    forward="""<<
||
x = x + 0.05 * torch.randn_like(x)
||
x = x + torch.from_numpy(np.random.normal(0, 0.05, x.shape)).to(x.dtype)
||
x = x.masked_fill(torch.rand(x.shape) < 0.1, 0.0)
||
x = F.dropout(x, 0.1, training=model.training)
>>
<<
out = model(x)
loss = <<F.cross_entropy(out, y)||nn.CrossEntropyLoss(label_smoothing=0.1)(out, y)||F.nll_loss(F.log_softmax(out, dim=1), y)||F.multi_margin_loss(out, y)>>
||
out = model(x)
soft = torch.full_like(out, 0.1 / 3).scatter_(1, y.unsqueeze(1), 0.9)
loss = <<-(soft * out.log_softmax(1)).sum(1).mean()||torch.mean(torch.sum(-soft * F.log_softmax(out, dim=-1), dim=-1))||F.cross_entropy(out, soft)||F.kl_div(out.log_softmax(1), soft, reduction="batchmean")>>
||
lam = <<np.random.beta(0.5, 0.5)||torch.distributions.Beta(0.5, 0.5).sample().item()||random.betavariate(0.5, 0.5)>>
perm = <<torch.randperm(x.size(0))||torch.randperm(len(x))||np.random.permutation(len(x))>>
<<
out = model(lam * x + (1 - lam) * x[perm])
loss = lam * F.cross_entropy(out, y) + (1 - lam) * F.cross_entropy(out, y[perm])
||
hot = F.one_hot(y, 4).to(x.dtype)
x, hot = lam * x + (1 - lam) * x[perm], lam * hot + (1 - lam) * hot[perm]
out = model(x)
loss = F.cross_entropy(out, hot)
||
h = model[0](x) if isinstance(model, nn.Sequential) else x
out = model(x)
loss = F.cross_entropy(lam * out + (1 - lam) * out[perm], y) + 0.01 * h.pow(2).mean()
>>
||
out = model(x)
per = F.cross_entropy(out, y, reduction="none")
<<
loss = per.mean() + per.std()
||
pt = torch.exp(-per)
loss = (0.25 * (1 - pt) ** 2 * per).mean()
||
w = class_weights[y]
loss = (per * w).sum() / w.sum()
||
loss = per[per > per.mean()].mean()
||
loss = torch.stack([per[y == c].mean() for c in y.unique()]).mean()
||
loss = (per * per.detach() / per.detach().sum()).sum()
||
t = 2.0
loss = torch.log(torch.mean(torch.exp(t * per))) / t
>>
||
x.requires_grad_(True)
out = model(x)
loss = F.cross_entropy(out, y)
grad = torch.autograd.grad(loss, x, retain_graph=True)[0]
adv = (x + 0.1 * grad.sign()).detach()
loss = <<0.5 * loss + 0.5 * F.cross_entropy(model(adv), y)||F.cross_entropy(model(adv), y)>>
||
one, two = model(x), model(x)
out = (one + two) / 2
p, q = one.log_softmax(-1), two.log_softmax(-1)
loss = F.cross_entropy(out, y) + 0.5 * (F.kl_div(p, q.exp(), reduction="<<batchmean||sum||mean>>") + F.kl_div(q, p, reduction="batchmean", log_target=True))
>>""",
    count="<<x.size(0)||len(x)||y.shape[0]||y.numel()||out.size(0)>>",
    metric=_CLASSES,
    setup="class_weights = torch.tensor([1.0, 2.0, 0.5, 1.5])",
    judged="(out.argmax(1) == y).sum().item()",
)
TASKS["picture"] = Task(
    data="""
X, Y = torch.rand(ROWS, 2, 8, 8), torch.randint(0, 4, (ROWS,))
<<
data = TensorDataset(X, Y)
||
class Pictures(Dataset):
    def __init__(self, transform=None): self.transform = transform
    def __len__(self): return ROWS
    def __getitem__(self, i):
        x = X[i] if self.transform is None else self.transform(X[i])
        return <<x, Y[i]||{"image": x, "label": Y[i]}>>
data = Pictures(<<||lambda x: (x - 0.5) / 0.5>>)
||
data = ConcatDataset([TensorDataset(X[:11], Y[:11]), TensorDataset(X[11:].flip(-1), Y[11:])])
>>""",
    taken="x, y",
    model="""<<
class Residual(nn.Module):
    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.n1 = <<nn.BatchNorm2d(cout)||nn.GroupNorm(2, cout)>>
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.n2 = <<nn.BatchNorm2d(cout)||nn.InstanceNorm2d(cout, affine=True)>>
        self.short = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if stride > 1 or cin != cout else nn.Identity()
    def forward(self, x):
        h = F.relu(self.n1(self.conv1(x)))
        return F.relu(self.n2(self.conv2(h)) + self.short(x))
model = nn.Sequential(Residual(2, 4), Residual(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), <<||nn.Dropout(0.1), >>nn.Linear(6, 4))
||
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.<<MaxPool2d(2)||AvgPool2d(2)>>, nn.Conv2d(4, 6, 3, padding=1, groups=2), <<nn.BatchNorm2d(6)||nn.Dropout2d(0.2)||nn.Identity()>>, nn.ELU())
        self.classifier = nn.Linear(6 * 16, 4)
    def forward(self, x):
        x = self.features(x)
        x = <<x.view(x.size(0), -1)||torch.flatten(x, 1)||x.reshape(len(x), -1)||x.view(-1, 96)>>
        return self.classifier(x)
model = Net()
||
class Squeeze(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(c, 2), nn.ReLU(), nn.Linear(2, c), nn.Sigmoid())
    def forward(self, x):
        b, c, _, _ = x.size()
        return x * self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1)
model = nn.Sequential(nn.utils.<<spectral_norm||weight_norm>>(nn.Conv2d(2, 4, 3)), nn.SiLU(), Squeeze(4), nn.Conv2d(4, 4, 3, 2), nn.Flatten(), nn.LazyLinear(4))
model(torch.zeros(1, 2, 8, 8))
>>""",
    forward="""<<
||
if <<random.random()||np.random.rand()||torch.rand(1).item()>> < 0.5:
    x = x.flip(-1)
||
keep = torch.rand(x.size(0)) < 0.5
x = torch.where(keep[:, None, None, None], x.flip(3), x)
||
x = x.clone()
for i in range(x.size(0)):
    top, left = i % 3, (i * 5) % 4
    x[i, :, top : top + 3, left : left + 3] = 0
||
top, left = <<random.randint(0, 4), random.randint(0, 4)||np.random.randint(5), np.random.randint(5)||torch.randint(0, 5, (2,)).tolist()>>
x = x.clone()
x[:, :, top : top + 3, left : left + 3] = 0
||
x = x + torch.empty_like(x).normal_(0, 0.05)
||
mean, std = x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True)
x = (x - mean) / (std + 1e-3)
||
shift = random.randint(-2, 2)
x = torch.roll(x, shift, dims=<<-1||(3,)>>)
||
x = x * torch.empty(x.size(0), 1, 1, 1).uniform_(0.8, 1.2)
||
angle = (torch.rand(x.size(0)) - 0.5) * 0.4
theta = torch.stack([torch.cos(angle), -torch.sin(angle), torch.zeros_like(angle), torch.sin(angle), torch.cos(angle), torch.zeros_like(angle)], 1).view(-1, 2, 3)
x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
||
x = F.interpolate(F.interpolate(x, scale_factor=0.5), size=8, mode="bilinear", align_corners=False)
||
p = 2
b, c, h, w = x.shape
x = F.pad(x, (p, p, p, p), mode="reflect")
top, left = np.random.randint(0, 2 * p + 1), np.random.randint(0, 2 * p + 1)
x = x[:, :, top : top + h, left : left + w]
>>
<<
out = model(x)
loss = F.cross_entropy(out, y<<||, label_smoothing=0.05||, weight=class_weights>>)
||
lam, index = np.random.beta(1.0, 1.0), torch.randperm(x.size(0))
bx, by = int(8 * math.sqrt(1 - lam)), np.random.randint(4)
x = x.clone()
x[:, :, by : by + bx, by : by + bx] = x[index, :, by : by + bx, by : by + bx]
lam = 1 - (min(by + bx, 8) - by) ** 2 / (x.size(-1) * x.size(-2))
out = model(x)
loss = F.cross_entropy(out, y) * lam + F.cross_entropy(out, y[index]) * (1.0 - lam)
||
lam, index = np.random.beta(0.3, 0.3), torch.randperm(len(y))
out = model(lam * x + (1 - lam) * x[index, :])
loss = lam * criterion(out, y) + (1 - lam) * criterion(out, y[index])
||
turned, which = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)]), torch.arange(4).repeat_interleave(len(x))
out = model(x)
loss = F.cross_entropy(out, y) + 0.5 * F.cross_entropy(model(turned), which)
||
x1, x2 = x, x.flip(-1)
out = model(x1)
with torch.no_grad():
    soft = F.softmax(model(x2), dim=-1)
    sure = soft.max(1).values.ge(<<0.26||0.3>>).to(x.dtype)
loss = F.cross_entropy(out, y) + (F.cross_entropy(out, soft.argmax(1), reduction="none") * sure).mean()
>>""",
    count="<<x.size(0)||len(x)||y.shape[0]||x.shape[0]>>",
    metric=_CLASSES,
    setup="criterion, class_weights = nn.CrossEntropyLoss(), torch.tensor([1.0, 2.0, 0.5, 1.5])",
    judged="(out.argmax(1) == y).sum().item()",
)
