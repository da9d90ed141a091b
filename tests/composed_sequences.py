"""More tasks, as in `composed_tasks.py`: words, sequences, tables of users, and rows that no loader gave."""

from composed_tasks import Task

_WORDS = """
X = [torch.randint(1, 12, (int(n),)) for n in torch.randint(2, 7, (ROWS,))]
Y = torch.randint(0, 4, (ROWS,))
data = list(zip(X, Y))"""
TASKS = {}
TASKS["bag"] = Task(
    data=f"""{_WORDS}
def collate(rows):
    labels, words, offsets = [], [], [0]
    for ids, label in rows:
        labels.append(int(label))
        words.append(ids)
        offsets.append(ids.size(0))
    return torch.tensor(labels), torch.cat(words), torch.tensor(offsets[:-1]).cumsum(dim=0)""",
    taken="y, words, offsets",
    model="""
class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.EmbeddingBag(12, 8, mode="<<mean||sum||max>>", sparse=False)
        self.fc = nn.Linear(8, 4)
    def forward(self, words, offsets):
        return self.fc(self.embed(words, offsets))
model = Bag()""",
    forward="out = model(words, offsets)\nloss = F.cross_entropy(out, y)",
    count="<<y.size(0)||len(y)||offsets.size(0)>>",
    metric=(
        'stats["right"] += (out.argmax(1) == y).sum().item()\nstats["of"] += y.size(0)',
        "",
    ),
    collate=True,
    judged="(out.argmax(1) == y).sum().item()",
)
TASKS["packed"] = Task(
    data=f"""{_WORDS}
def collate(rows):
    <<rows.sort(key=lambda row: len(row[0]), reverse=True)
    ||>>words, tags = zip(*rows)
    lengths = <<torch.tensor([len(row) for row in words])||[len(row) for row in words]||torch.LongTensor(list(map(len, words)))>>
    return <<pad_sequence(words, batch_first=True)||nn.utils.rnn.pad_sequence(list(words), True, 0)>>, <<torch.stack(tags)||torch.tensor([int(t) for t in tags])>>, lengths""",
    taken="x, y, lengths",
    model="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 6, padding_idx=0)
        self.rnn = nn.<<GRU||LSTM||RNN>>(6, 8, batch_first=True, bidirectional=<<True||False>>)
        self.fc = nn.LazyLinear(4)
    def forward(self, x, lengths):
        e = self.embed(x)
        <<
        packed = pack_padded_sequence(e, lengths, batch_first=True, enforce_sorted=False)
        out, h = self.rnn(packed)
        h = h[0] if isinstance(h, tuple) else h
        return self.fc(torch.cat(list(h), dim=1))
        ||
        lengths = torch.as_tensor(lengths)
        lengths, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(e[order], lengths, batch_first=True)
        out, h = self.rnn(packed)
        h = h[0] if isinstance(h, tuple) else h
        back = <<order.argsort()||order.sort()[1]||torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))>>
        return self.fc(h.transpose(0, 1).reshape(len(x), -1)[back])
        ||
        packed = pack_padded_sequence(e, torch.as_tensor(lengths).cpu(), batch_first=True, enforce_sorted=False)
        out, sizes = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.fc(<<out.sum(1) / sizes.view(-1, 1)||out.gather(1, (sizes - 1).view(-1, 1, 1).expand(-1, 1, out.size(-1)))[:, 0]||out[torch.arange(out.size(0)), sizes - 1]>>)
        >>
model = Net()
model(X[0][None], torch.tensor([len(X[0])]))""",
    forward="out = model(x, lengths)\nloss = F.cross_entropy(out, y)",
    count="<<y.size(0)||len(y)||x.size(0)||len(lengths)>>",
    metric=('stats["right"] += (out.argmax(1) == y).sum().item()\nstats["words"] += int(sum(lengths))', ""),
    collate=True,
    judged="(out.argmax(1) == y).sum().item()",
)
TASKS["series"] = Task(
    data="""
S = torch.randn(ROWS + 8, 2).cumsum(0) * 0.2
class Windows(Dataset):
    def __init__(self, series, width): self.series, self.width = series, width
    def __len__(self): return ROWS
    def __getitem__(self, i): return self.series[i : i + self.width], self.series[i + self.width, <<:1||0:1>>]
data = Windows(S, 6)""",
    taken="x, y",
    model="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.<<LSTM(2, 8, num_layers=2, batch_first=True, dropout=0.0)||GRU(2, 8, batch_first=True)>>
        self.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 1))
    def forward(self, x, h=None):
        z, h = self.rnn(x, h)
        return self.fc(z[:, -1, :]), h
model = Net()""",
    forward="""<<
out, _ = model(x)
||
if isinstance(model.rnn, nn.LSTM):
    h = (torch.zeros(2, x.size(0), 8), torch.zeros(2, x.size(0), 8))
else:
    h = torch.zeros(1, x.size(0), 8)
out, _ = model(x, h)
||
if state is not None and (state[0] if isinstance(state, tuple) else state).size(1) != x.size(0):
    state = None
out, state = model(x, state)
state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
>>
loss = <<F.mse_loss(out, y)||nn.SmoothL1Loss()(out, y)||torch.sqrt(F.mse_loss(out, y))||((out - y).abs() / (y.abs() + 0.1)).mean()>>""",
    count="<<x.size(0)||len(x)||y.shape[0]>>",
    setup="state = None",
    metric=(
        'kept["p"].append(out.detach())\nkept["t"].append(y)\nstats["mae"] += (out - y).abs().sum().item()',
        'p, t = torch.cat(kept["p"]).numpy(), torch.cat(kept["t"]).numpy()\nprint("r2", 1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum(), mean_squared_error(t, p))',
    ),
)
TASKS["language"] = Task(
    data="""
text = torch.randint(0, 11, (ROWS * 5 + 1,))
<<
class Text(Dataset):
    def __len__(self): return ROWS
    def __getitem__(self, i): return text[i * 5 : i * 5 + 5], text[i * 5 + 1 : i * 5 + 6]
data = Text()
||
data = TensorDataset(text[:-1].view(-1, 5), text[1:].view(-1, 5))
>>""",
    taken="x, y",
    model="""
class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        <<self.head.weight = self.wte.weight||pass>>
    def forward(self, idx, targets=None):
        b, t = idx.size()
        h = self.wte(idx) + self.wpe(torch.arange(t, device=idx.device))
        mask = torch.triu(torch.full((t, t), float("-inf")), 1)
        for block in self.blocks:
            h = block(h, src_mask=mask)
        logits = self.head(self.norm(h))
        loss = None if targets is None else <<F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))||F.cross_entropy(logits.transpose(1, 2), targets)>>
        return logits, loss
model = GPT()""",
    forward="""<<
out, loss = model(x, y)
||
logits, _ = model(x)
B, T, C = logits.shape
loss = F.cross_entropy(logits.view(B * T, C), y.view(B * T))
out = logits
||
out, _ = model(x)
shift, labels = out[..., :-1, :].contiguous(), x[..., 1:].contiguous()
loss = nn.CrossEntropyLoss()(shift.view(-1, shift.size(-1)), labels.view(-1))
||
masked, which = x.clone(), torch.rand(x.shape) < 0.3
which[:, 0] = True
masked[which] = 10
out, _ = model(masked)
loss = F.cross_entropy(out[which], x[which])
||
out, _ = model(x)
logp = out.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)
loss = -(logp * (y != 3)).sum() / (y != 3).sum()
>>""",
    count="<<x.size(0)||x.numel()||len(x)||x.size(0) * x.size(1)>>",
    metric=(
        'stats["right"] += (out.argmax(-1) == y).sum().item()\nstats["tokens"] += y.numel()',
        'print("perplexity", math.exp(stats["loss"] / max(1, stats["n"])))',
    ),
    judged="(out.argmax(-1) == y).sum().item()",
)
TASKS["users"] = Task(
    data="""
U, I, R = torch.randint(0, 9, (ROWS,)), torch.randint(0, 13, (ROWS,)), torch.randint(1, 6, (ROWS,)).to(torch.get_default_dtype())
data = TensorDataset(U, I, R)""",
    taken="u, i, r",
    model="""
class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(9, 4), nn.Embedding(13, 4)
        self.bu, self.bi = nn.Embedding(9, 1), nn.Embedding(13, 1)
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    def forward(self, u, i):
        a, b = self.users(u), self.items(i)
        <<return (a * b).sum(-1) + self.bu(u).squeeze(-1) + self.bi(i).squeeze(-1)||return self.mlp(torch.cat([a, b], dim=-1)).squeeze(-1)||return torch.einsum("...d,...d->...", a, b)>>
model = Factors()""",
    forward="""<<
out = model(u, i)
loss = <<F.mse_loss(out, r)||((out - r) ** 2).mean() + 1e-3 * (model.users(u).pow(2).sum() + model.items(i).pow(2).sum()) / len(u)||F.binary_cross_entropy_with_logits(out, (r > 3).to(out.dtype))>>
||
neg = torch.randint(0, 13, <<(u.size(0),)||i.shape||(len(u),)>>)
out, other = model(u, i), model(u, neg)
loss = <<-F.logsigmoid(out - other).mean()||-(out - other).sigmoid().log().sum() / out.size(0)||F.relu(1 - out + other).mean()>>
||
neg = torch.randint(0, 13, (u.size(0), 3))
out = model(u, i)
other = model(u.unsqueeze(1).expand(-1, 3), neg)
scores = torch.cat([out.unsqueeze(1), other], 1)
loss = <<F.cross_entropy(scores, torch.zeros(u.size(0), dtype=torch.long))||-(scores[:, 0] - scores.logsumexp(1)).mean()||F.binary_cross_entropy_with_logits(scores, torch.cat([torch.ones(len(u), 1), torch.zeros(len(u), 3)], 1))>>
||
neg = torch.from_numpy(np.random.randint(0, 13, size=len(u)))
out = model(u, i)
loss = -(F.logsigmoid(out) + F.logsigmoid(-model(u, neg))).mean()
>>""",
    count="<<u.size(0)||len(u)||r.shape[0]||out.numel()>>",
    metric=(
        'stats["se"] += ((out - r) ** 2).sum().item()\nkept["p"] += out.tolist()',
        'print("rmse", math.sqrt(stats["se"] / max(1, stats["n"])), np.round(np.std(kept["p"]), 5), len(kept["p"]))',
    ),
    judged="((out - r).abs() < 1).sum().item()",
)
TASKS["diffusion"] = Task(
    data="X = torch.randn(ROWS, 6)\ndata = TensorDataset(X)",
    taken="x",
    model="""
class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Embedding(10, 4)
        self.net = nn.Sequential(nn.Linear(10, 12), nn.SiLU(), nn.Linear(12, 6))
    def forward(self, x, t):
        return self.net(torch.cat([x, self.time(t)], -1))
model = Denoiser()
bars = torch.cumprod(1 - torch.linspace(1e-2, 0.2, 10), 0)""",
    forward="""
t = <<torch.randint(0, 10, (x.size(0),))||torch.randint(0, 10, (len(x),), device=x.device).long()||torch.randint(10, x.shape[:1])>>
noise = <<torch.randn_like(x)||torch.randn(x.shape)||torch.normal(0.0, 1.0, size=x.shape)>>
a = <<bars[t].view(-1, 1)||bars[t][:, None]||bars.gather(0, t).reshape(-1, 1)||bars.index_select(0, t).unsqueeze(-1)>>
noisy = a.sqrt() * x + (1 - a).sqrt() * noise
out = model(noisy, t)
loss = <<F.mse_loss(out, noise)||(F.mse_loss(out, noise, reduction="none").mean(1) * torch.clamp(a[:, 0] / (1 - a[:, 0]), max=5.0)).mean()||F.smooth_l1_loss(out, noise)||((out - noise) ** 2).sum(dim=1).mean()>>""",
    count="<<x.size(0)||len(x)>>",
    metric=(
        "for step_of, each in zip(t.tolist(), (out - noise).pow(2).mean(1).tolist()):\n    kept[step_of].append(each)",
        'print("by time", {k: (len(v), round(float(np.mean(v)), 5)) for k, v in sorted(kept.items()) if isinstance(k, int)})',
    ),
)
TASKS["policy"] = Task(
    data="""
X, A = torch.randn(ROWS, 6), torch.randn(ROWS, 4)
data = TensorDataset(X, A)""",
    taken="x, gains",
    model="""
class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.pi, self.v = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 4), nn.Linear(8, 1)
    def forward(self, x):
        z = self.body(x)
        return self.pi(z), self.v(z).squeeze(-1)
model = Policy()""",
    forward="""
out, v = model(x)
dist = torch.distributions.Categorical(logits=out)
a = <<dist.sample()||out.softmax(-1).multinomial(1).squeeze(1)||dist.sample((1,))[0]>>
r = <<gains[torch.arange(len(a)), a]||gains.gather(1, a.unsqueeze(1)).squeeze(1)||gains[range(x.size(0)), a]>>
adv = r - v.detach()
<<adv = (adv - adv.mean()) / (adv.std() + 1e-5)||adv = adv - adv.mean()||adv = adv / adv.abs().max()>>
<<
loss = -(dist.log_prob(a) * adv).mean() + 0.5 * F.mse_loss(v, r) - 0.01 * dist.entropy().mean()
||
old = dist.log_prob(a).detach() + 0.05
ratio = (dist.log_prob(a) - old).exp()
loss = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean() + 0.5 * (v - r).pow(2).mean()
||
loss = (-dist.log_prob(a) * adv).sum() / len(a) + F.smooth_l1_loss(v, r)
>>""",
    count="<<x.size(0)||len(x)||len(a)>>",
    metric=(
        'stats["reward"] += r.sum().item()\nkept["a"] += a.tolist()',
        'print("actions", np.bincount(kept["a"], minlength=4).tolist())',
    ),
)
