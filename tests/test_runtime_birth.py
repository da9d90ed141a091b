"""Weights in parts from their birth where products are spread or blocks are in stages: what scripts do ahead of training."""

import layout_scripts as scripts
import pytest
from one_device import plain, same_run

# Before training: sums, edits, states stored and read again, a call, a backward, a copy, an average, an optimizer's state.
AHEAD = (
    scripts.DATA
    + """
import copy, os
from torch.nn.utils.parametrizations import orthogonal
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)
    def forward(self, x):
        return x + self.fc2(torch.tanh(self.fc1(self.norm(x))))
class Model(nn.Module):
    def __init__(self, wrap=orthogonal):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.memory = nn.LSTM(6, 6, batch_first=True)
        self.layers = nn.ModuleList(Block() for _ in range(4))
        self.last = nn.Linear(6, 6)
        self.last.weight = self.first.weight
        self.heat = nn.Parameter(torch.tensor(0.5))
        self.bound = wrap(nn.Linear(6, 6))
        self.head = nn.Linear(6, 3, bias=False)
    def forward(self, x):
        x = self.memory(self.first(x)[:, None])[0][:, 0]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.bound(self.last(x) * self.heat))
model = Model()
print("made", sum(p.double().sum().item() for p in model.parameters()), torch.rand(()).item())
model.cuda()
folder = os.path.dirname(sys.argv[1])
with torch.no_grad():
    model.layers[1].fc1.weight[0] = 1.0
    model.first.bias.data.mul_(2).add_(1)
model.head.weight.no_decay = True
torch.save(model.state_dict(), folder + "/early.pt")
torch.save({"model": model.layers}, folder + "/model.pt")
other = Model().cuda()
print(other.load_state_dict(torch.load(folder + "/early.pt")), other.first.weight is other.last.weight)
for mine, its in zip(model.parameters(), other.parameters()):
    print("same", torch.equal(mine, its))
frozen = nn.Sequential(nn.Linear(6, 4), *[nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2)])
frozen = frozen.cuda().requires_grad_(False).eval()
teacher = copy.deepcopy(other).requires_grad_(False).eval()
held, bounded = list(model.parameters()), model.layers[0].fc1.weight
with torch.no_grad():
    print("called", teacher(x[:4]).sum().item(), model(x[:4]).sum().item())
model(x[:4]).square().mean().backward()
print("went back", held[0].grad.norm().item(), bounded.grad.norm().item())
model.zero_grad()
opt = torch.optim.AdamW([dict(params=[p for p in held if not hasattr(p, "no_decay")]),
                         dict(params=[p for p in held if hasattr(p, "no_decay")], weight_decay=0.0)], lr=0.01, eps=1e-3)
moments = {i: {"step": torch.tensor(3.0), "exp_avg": torch.full_like(p, 0.1), "exp_avg_sq": torch.full_like(p, 0.2)}
           for i, p in enumerate(p for g in opt.param_groups for p in g["params"])}
opt.load_state_dict({"state": moments, "param_groups": opt.state_dict()["param_groups"]})
average = [p.detach().clone() for p in held]
for a, b in data():
    loss = F.mse_loss(model(a), b + 0.1 * teacher(a)) + 0.01 * bounded.pow(2).sum() + frozen(a).mean()
    opt.zero_grad(); loss.backward()
    norm = nn.utils.clip_grad_norm_(held, 1.0)
    opt.step()
    with torch.no_grad():
        torch._foreach_lerp_(average, held, 0.1)
        average[0].mul_(0.9).add_(held[0], alpha=0.1)
    print(f"loss {loss.item()} {norm.item()} {held[3].sum().item()}")
print("of the copy", type(teacher.first.weight).__name__, sum(p.double().sum().item() for p in teacher.parameters()))
print("average", sum(p.double().sum().item() for p in average), model.head.weight.no_decay)
print("states", sum(v.abs().sum().item() for s in opt.state.values() for k, v in s.items() if k != "step"))
print("tied", model.first.weight is model.last.weight, [n for n, _ in model.named_parameters()])
later = Model(nn.Sequential).cuda()
later.layers.load_state_dict(model.layers.state_dict())
tuned = torch.optim.SGD(later.parameters(), lr=0.1)
for a, b in data():
    loss = F.mse_loss(later(a), b)
    tuned.zero_grad(); loss.backward(); tuned.step()
    print(f"later {loss.item()}")
torch.save([model.state_dict(), later.state_dict(), torch.load(folder + "/early.pt"), teacher.state_dict(),
            torch.load(folder + "/model.pt", weights_only=False)["model"].state_dict()], folder + "/all.pt")
torch.save([value for state in torch.load(folder + "/all.pt") for value in state.values()], sys.argv[1])
"""
)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("plain"), AHEAD)


@pytest.mark.parametrize(("layout", "count"), [("tp=2", 2), ("pp=2", 2), ("tp=2,replicate", 4)])
def test_what_scripts_do_ahead_of_training_is_as_on_one_device(work, one, layout, count):
    same_run(work, AHEAD, *one, count, layout=layout)


EARLY = (
    scripts.DATA
    + """
model = net()
torch.save(list(model.parameters()), sys.argv[1])
print(torch.load(sys.argv[1])[0].sum().item())
"""
)


def test_weights_in_parts_are_stored_ahead_of_training(work):
    """Rank 0 alone asked the others for their parts, and waited for ever."""
    same_run(work, EARLY, *plain(work, EARLY), 2, layout="fsdp")
