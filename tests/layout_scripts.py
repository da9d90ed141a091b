"""Scripts for one device, for the tests of layouts: what each prints and saves must not depend on the layout."""

HEAD = """
import copy, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
saved = {}
def keep(name, model):
    saved.update({f"{name}.{key}": torch.tensor(value.tolist()) for key, value in model.named_parameters()})
"""

DATA = (
    HEAD
    + """
x = torch.randn(19, 6, generator=torch.Generator().manual_seed(1))
y = torch.randn(19, 3, generator=torch.Generator().manual_seed(2))
def data(): return DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
def net():
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).cuda()
"""
)

# A hand-written GPT with tied weights, a scalar parameter, a frozen one; accumulation, clipping, a scheduler, a last
# batch of 3 rows; evaluation in between.
GPT = (
    HEAD
    + """
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
    def forward(self, x, mask):
        y = self.norm(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(x)
class GPT(nn.Module):
    def __init__(self, words=13, width=10, depth=4):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(6, width) / 10)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight
        self.heat = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", torch.triu(torch.full((6, 6), float("-inf")), 1))
    def forward(self, tokens, targets=None):
        x = self.embed(tokens) + self.place
        for block in self.blocks:
            x = block(x, self.mask)
        scores = self.head(self.norm(x)) / self.heat
        return scores if targets is None else F.cross_entropy(scores.flatten(0, 1), targets.flatten())
model = GPT().cuda()
model.blocks[1].norm.weight.requires_grad_(False)
held = list(model.parameters())
optim = torch.optim.AdamW([
    {"params": [p for p in held if p.dim() > 1], "weight_decay": 0.1},
    {"params": [p for p in held if p.dim() <= 1], "weight_decay": 0.0},
], lr=0.01, eps=1e-3)  # the bias of attention keys has no gradient but rounding
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 12)
chance = torch.Generator().manual_seed(3)
tokens = torch.randint(0, 13, (19, 6), generator=chance)
targets = torch.where(torch.rand(19, 6, generator=chance) < 0.3, -100, tokens.roll(-1, 1))
step = 0
for epoch in range(3):
    model.train()
    for a, b in DataLoader(TensorDataset(tokens, targets), batch_size=8, shuffle=True):
        loss = model(a.cuda(), b.cuda())
        (loss / 2).backward()
        step += 1
        print(f"loss {loss.item()}")
        if step % 2 == 0:
            print(f"by hand {sum(p.grad.norm().item() ** 2 for p in held if p.grad is not None) ** 0.5}")
            print(f"norm {nn.utils.clip_grad_norm_(model.parameters(), 0.5).item()} {held[0].grad.sum().item()}")
            optim.step()
            scheduler.step()
            optim.zero_grad()
    model.eval()
    for a, b in DataLoader(TensorDataset(tokens, targets), batch_size=7):
        with torch.no_grad():
            print(f"held out {model(a, b).item()}")
print(type(model).__name__, type(model.blocks[0]).__name__, model.head.weight is model.embed.weight)
print([name for name, _ in model.named_parameters()])
keep("gpt", model)
torch.save(saved, sys.argv[1])
"""
)


# What scripts do with parameters and gradients by hand: two optimizers and frozen weights, a teacher, averages of
# weights, penalties, norms, prints, parts of a model called by themselves, edits, views.
HABITS = (
    DATA
    + """

def gan():
    G = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 6)).cuda()
    D = nn.Sequential(nn.Linear(6, 9), nn.LeakyReLU(0.2), nn.Linear(9, 1)).cuda()
    og = torch.optim.Adam(G.parameters(), lr=0.01, eps=1e-4); od = torch.optim.SGD(D.parameters(), lr=0.1)
    for epoch in range(2):
        for real, other in data():
            z = torch.cat([other, other[:, :1]], 1)
            fake = G(z)
            for p in D.parameters(): p.requires_grad_(True)
            ld = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
            od.zero_grad(); ld.backward(); od.step()
            for p in D.parameters(): p.requires_grad_(False)
            lg = F.softplus(-D(fake)).mean()
            og.zero_grad(); lg.backward(); og.step()
            print(f"gan {ld.item()} {lg.item()}")
    keep("g", G); keep("d", D)

def distil():
    teacher = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).cuda()
    for p in teacher.parameters(): p.requires_grad = False
    teacher.eval()
    student = nn.LSTM(6, 5, batch_first=True).cuda()
    head = nn.Linear(5, 3)
    ema = copy.deepcopy(student)
    for p in ema.parameters(): p.requires_grad_(False)
    params = [*student.parameters(), *head.parameters()]
    shadow = {n: p.data.clone() for n, p in head.named_parameters()}
    opt = torch.optim.SGD(params, lr=0.3, momentum=0.9)
    for epoch in range(2):
        for a, b in data():
            with torch.no_grad(): t = teacher(a)
            out, _ = student(a[:, None].repeat(1, 3, 1))
            loss = F.mse_loss(head(out[:, -1]), t) + 0.01 * sum(p.pow(2).sum() for p in params)
            opt.zero_grad(); loss.backward()
            nn.utils.clip_grad_value_(params, 0.02)
            opt.step()
            with torch.no_grad():
                for e, p in zip(ema.parameters(), student.parameters()): e.mul_(0.9).add_(p, alpha=0.1)
                for n, p in head.named_parameters():
                    shadow[n] = 0.1 * p.data + 0.9 * shadow[n]
            print(f"distil {loss.item()} {sum(v.sum().item() for v in shadow.values())}")
            joined = [torch.cat([turn(p).flatten() for p in student.parameters()]) for turn in (lambda p: p.detach(), lambda p: p.grad)]
            print(f"joined {joined[0].std().item()} {joined[1].abs().max().item()} {joined[0].quantile(0.3).item()}")
    print(head.bias, head.weight.grad)
    print(f"{head.bias.norm():.4f}", head.weight[0], head.weight.shape, head.weight.data.mean(), head.weight.std())
    keep("student", student); keep("ema", ema)

def cnn():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*[
                nn.Sequential(nn.Conv1d(c, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU()) for c in (1, 6, 6)
            ])
            self.out = nn.Linear(36, 3)
        def features(self, x): return self.layers(x[:, None]).flatten(1)
        def forward(self, x): return self.out(self.features(x))
    net = Net().cuda()
    opt = torch.optim.Adagrad(net.parameters(), lr=0.1)
    for a, b in data():
        loss = F.mse_loss(net(a), b)
        opt.zero_grad(); loss.backward()
        total = 0.0
        for p in net.parameters():
            total += p.grad.data.norm(2).item() ** 2
        for p in net.parameters():
            p.grad.mul_(1.0 / (total ** 0.5 + 1))
        opt.step()
        print(f"cnn {loss.item()} {total}")
    # parts of the model by themselves
    for a, b in data():
        loss = F.mse_loss(net.out(net.features(a)), b)
        opt.zero_grad(); loss.backward(); opt.step()
        print(f"parts {loss.item()} {net.out.weight.grad.norm().item()}")
    for a, b in data():
        loss = F.mse_loss(F.linear(net.features(a), net.out.weight * 2, net.out.bias), b)
        opt.zero_grad(); loss.backward(); opt.step()
        print(f"weight {loss.item()} {net.out.weight.grad.norm().item()}")
    with torch.no_grad():
        net.out.weight[0] = 1.0
        net.out.weight.data[1, 2] = 5.0
        net.out.bias.copy_(torch.arange(3.0))
        net.layers[1][0].weight.data = torch.ones(6, 6, 3) / 3
        nn.init.normal_(net.layers[2][0].weight, std=0.1)
        net.out.weight.clamp_(-0.5, 0.6)
    for a, b in data():
        print(f"edited {F.mse_loss(net(a), b).item()}"); F.mse_loss(net(a), b).backward()
    keep("cnn", net)
for f in (gan, distil, cnn): f()

m = nn.Linear(6, 3).cuda(); o = torch.optim.SGD(m.parameters(), lr=0.1)
flat = None
for a, b in data():
    loss = F.mse_loss(m(a), b); o.zero_grad(); loss.backward(); o.step()
    flat = m.weight.data.view(-1) if flat is None else flat
    column, first = m.weight.detach().T[2].sum(), m.weight.grad.view(-1)[:4].norm()
    print(f"views {loss.item()} {flat[3].item()} {column.item()} {first.item()}")
    flat[3] = 0.5; m.weight.data.view(-1)[2:][1:3].mul_(0.5); m.bias.data[1:].add_(1)
print(flat, m.weight.detach().numpy()[0], m.weight.tolist()[1])
torch.save(saved, sys.argv[1])
"""
)

# Every optimizer of torch that takes dense gradients, one of Hugging Face, and what is in their states.
OPTIMIZERS = (
    DATA
    + """

def hooked(opt):  # whoever looks on in a step sees whole parameters
    opt.register_step_post_hook(lambda o, *_: print([tuple(p.shape) for p in o.param_groups[0]["params"]]))
    return opt
OPTIMS = {
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True, amsgrad=True),
    "adam loop": lambda p: torch.optim.Adam(p, lr=0.01, foreach=False),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "with a number": lambda p: torch.optim.AdamW([*p, nn.Parameter(torch.tensor(1.0))], lr=0.01),
    "hooked": lambda p: hooked(torch.optim.Adam(p, lr=0.01)),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=3),
    "muon": lambda p: torch.optim.Muon([q for q in p if q.dim() == 2], lr=0.05),
}
from transformers.optimization import Adafactor
OPTIMS["hf adafactor"] = lambda p: Adafactor(p, lr=0.05, relative_step=False, scale_parameter=True, beta1=0.9)
for name, make in OPTIMS.items():
    torch.manual_seed(3)
    model = net(); opt = make(list(model.parameters()))
    for a, b in data():
        def closure():
            opt.zero_grad(); loss = F.mse_loss(model(a), b); loss.backward(); return loss
        if name == "lbfgs":
            loss = opt.step(closure)
        else:
            loss = closure(); opt.step()
        print(f"{name} {loss.item()} {sum(p.sum().item() for p in model.parameters())}")
    state = opt.state[model[0].weight] if name != "lbfgs" else {}
    print(name, {k: float(v.float().norm()) for k, v in state.items() if torch.is_tensor(v)})
    keep(name, model)
torch.save(saved, sys.argv[1])
"""
)

# Without a loader, without an optimizer, with a gradient scaler, with an optimizer's state from before, blocks that are
# tied or used more than once, two backwards, an evaluation without no_grad.
TRAININGS = (
    DATA
    + """
def bare():  # no loader, no optimizer, weights updated by hand
    model = net()
    for step in range(4):
        a, b = x[step:step + 8], y[step:step + 8]
        loss = F.mse_loss(model(a), b)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
                p.grad = None
        print(f"bare {loss.item()}")
    keep("bare", model)
def nano():  # no loader, accumulation, gradient scaler
    model = net()
    opt = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    model.train()
    for step in range(4):
        for part in range(2):
            a, b = x[step + 4 * part:step + 4 * part + 4], y[step + 4 * part:step + 4 * part + 4]
            loss = F.mse_loss(model(a), b) / 2
            scaler.scale(loss).backward()
        scaler.unscale_(opt)
        kind = float("inf") if step == 1 else 2.0
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1, norm_type=kind, error_if_nonfinite=True)
        scaler.step(opt); scaler.update(); opt.zero_grad(set_to_none=False)
        print(f"nano {loss.item()} {norm.item()} {scaler.get_scale()}")
    for p in model.parameters():
        p.grad.fill_(float("inf"))
    before = model[0].weight.sum().item()
    scaler.scale(loss.detach()); scaler.step(opt); scaler.update()
    print(f"skipped {before - model[0].weight.sum().item()} {scaler.get_scale()}")
    keep("nano", model)
def resumed():  # an optimizer with a state from before
    model = net(); opt = torch.optim.AdamW(model.parameters(), lr=0.01)
    states = {
        i: {"step": torch.tensor(3.0), "exp_avg": torch.full_like(p, 0.1), "exp_avg_sq": torch.full_like(p, 0.01)}
        for i, p in enumerate(model.parameters())
    }
    opt.load_state_dict({"state": states, "param_groups": opt.state_dict()["param_groups"]})
    held = list(model.parameters())
    for a, b in data():
        loss = F.mse_loss(model(a), b); opt.zero_grad(); loss.backward(); opt.step()
        print(f"resumed {loss.item()} {opt.state[next(model.parameters())]['exp_avg'].norm().item()}")
    held[0].requires_grad_(False)
    opt.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    for a, b in data():
        loss = F.mse_loss(model(a) + opt.param_groups[1]["params"][0], b); opt.zero_grad(); loss.backward(); opt.step()
        print(f"frozen {loss.item()} {held[0].grad} {opt.param_groups[1]['params'][0].sum().item()}")
    keep("resumed", model)
def albert():  # one block several times; blocks tied to each other
    block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    others = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2)]
    model = nn.Sequential(*[block] * 3, *others, nn.Linear(6, 3)).cuda()
    model[4][0].weight = model[3][0].weight
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b in data():
        loss = F.mse_loss(model(a), b) + F.mse_loss(model(a * 2), b); opt.zero_grad(); loss.backward(); opt.step()
        print(f"albert {loss.item()}")
    for a, b in data():  # two backwards, one with inputs
        opt.zero_grad(); F.mse_loss(model(a), b).backward(); loss = (model(a) ** 2).mean(); loss.backward(); opt.step()
        print(f"twice {loss.item()} {sum(p.grad.norm().item() for p in model.parameters())}")
    model.eval()
    for a, b in data():
        print(f"eval {F.mse_loss(model(a), b).item()} {len(a)}")
    opt.step()
    model.train()
    for a, b in data():
        loss = F.mse_loss(model(a), b); opt.zero_grad(); loss.backward(); opt.step()
        print(f"after {loss.item()}")
    keep("albert", model)
def compiled():
    blocks = [nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(3)]
    model = nn.Sequential(*blocks, nn.Linear(6, 3)).cuda()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b in data():
        loss = F.mse_loss(model(a), b); opt.zero_grad(); loss.backward(); opt.step()
        print(f"compiled {loss.item()}")
    keep("compiled", model)
for f in (nano, bare, resumed, albert, compiled):
    f()
torch.save(saved, sys.argv[1])
"""
)

# Hugging Face models: tied, with their own checkpointing, encoder and decoder; generation afterwards.
FAMILIES = (
    HEAD
    + """
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import T5Config, T5ForConditionalGeneration
tokens = torch.randint(1, 30, (11, 6), generator=torch.Generator().manual_seed(1))
targets = torch.where(torch.rand(11, 6, generator=torch.Generator().manual_seed(2)) < .3, -100, tokens)
def train(name, model, **extra):
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)
    model.train()
    for a, b in DataLoader(TensorDataset(tokens, targets), batch_size=4, shuffle=True):
        out = model(input_ids=a.cuda(), labels=b)
        out.loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step(); opt.zero_grad()
        print(f"{name} {out.loss.item()} {norm.item()}")
    model.eval()
    print(name, model.generate(tokens[:2], max_new_tokens=4, do_sample=False, pad_token_id=0).tolist())
    print(type(model).__name__, sum(p.numel() for p in model.parameters()))
    keep(name, model)
llama = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, tie_word_embeddings=True)
train("llama", LlamaForCausalLM(llama).cuda())
gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0,
                                  embd_pdrop=0, attn_pdrop=0))
gpt2.gradient_checkpointing_enable()
train("gpt2", gpt2.cuda())
t5 = T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, dropout_rate=0,
              decoder_start_token_id=0)
train("t5", T5ForConditionalGeneration(t5).cuda())
torch.save(saved, sys.argv[1])
"""
)

# bfloat16: printed coarsely, because it has three digits.
COARSE = (
    DATA
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.register_buffer("shift", torch.linspace(-1, 1, 6))
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 3)
    def forward(self, x):
        x = x + self.shift
        for block in self.blocks:
            x = x + block(x)
        return self.out(self.norm(x))
model = Net().cuda()
opt = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)
for a, b in data():
    out = model(a)
    loss = F.mse_loss(out, b)
    opt.zero_grad(); loss.backward(); opt.step()
    print(f"coarse {loss.item()} {out.dtype} {model.out.weight.dtype} {model.out.weight.grad.dtype}")
keep("coarse", model)
torch.save(saved, sys.argv[1])
"""
)

# Each sentence that refuses what weights in parts cannot give; the script catches it and goes on with another model.
REFUSALS = (
    DATA
    + """
import gc
from lumi_moai.errors import RequestError
def attempt(name, action):
    try:
        action()
    except RequestError as error:
        print(f"{name}: {error}")
    else:
        print(f"{name}: went through")
def begin(model):
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b in data():
        F.mse_loss(model(a), b).backward()
        break
model = net()
begin(model)
held = list(model.parameters())
attempt("copy", lambda: copy.deepcopy(model))
attempt("hook", lambda: model[0].weight.register_hook(lambda grad: grad * 2))
attempt("step", lambda: model[0].weight.register_post_accumulate_grad_hook(print))
attempt("address", lambda: model[0].weight.data_ptr())
a, b = x[:4], y[:4]
attempt("grad", lambda: torch.autograd.grad(F.mse_loss(model(a), b), held))
attempt("inputs", lambda: F.mse_loss(model(a), b).backward(inputs=held))
attempt("twice", lambda: F.mse_loss(model(a), b).backward(create_graph=True))
def late(make):
    def action():
        try:
            begin(make())
        finally:
            gc.collect()
    return action
def hooked():
    model = net()
    model[0].weight.register_hook(lambda grad: grad * 2)
    return model
class Words(nn.Module):
    def __init__(self, **words):
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 4, **words), nn.Linear(4, 3)
    def forward(self, x):
        return self.out(self.embed(x[:, 0].long().abs()))
attempt("hooked", late(hooked))
attempt("sparse", late(lambda: Words(sparse=True)))
attempt("clipped", late(lambda: Words(max_norm=1.0)))
attempt("lazy", late(lambda: nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3))))
"""
)
