"""Losses whose sum over the ranks is still under way: whatever a script does with one, it is the one-device loss."""

from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import HEAD

from lumi_moai.plan import Wishes

# Each habit trains three steps on batches of 5, 5 and 3 rows with unequal counts of ignored targets.
HABITS = (
    HEAD
    + """
import copy, io, pickle
x = torch.randn(13, 6, generator=torch.Generator().manual_seed(1))
y = torch.randint(0, 3, (13,), generator=torch.Generator().manual_seed(3))
scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
kept, printed = [], []
class Output(dict):
    @property
    def loss(self):
        return self["loss"]
@torch.compile(backend="eager")
def compiled(out, b):
    return F.cross_entropy(out, b, ignore_index=2)

def step(optim):
    optim.step()
    optim.zero_grad()
def straight(loss, model, optim):
    loss.backward(); step(optim)
def read_before(loss, model, optim):
    printed.append(loss.item()); loss.backward(); step(optim)
def halved(loss, model, optim):
    (loss / 2).backward(); step(optim)
def scaled_by_a_tensor(loss, model, optim):
    weight = torch.tensor(3.0)
    product = 0.5 * loss * weight
    product.backward(); weight.fill_(100.0); printed.append(product.item()); step(optim)
def in_place(loss, model, optim):
    loss *= 2
    loss.backward(); step(optim)
def added(loss, model, optim):
    (loss + 0.1 * F.mse_loss(model(x[:4]), torch.ones(4, 3)) + loss).backward(); step(optim)
def listed(loss, model, optim):
    kept.append(loss); loss.backward(); step(optim); printed.append(sum(kept).item() / len(kept))
def stacked(loss, model, optim):
    torch.stack([loss, loss * 2]).sum().backward(); step(optim)
def exponential(loss, model, optim):
    torch.exp(loss).backward(); step(optim)
def scaler_used(loss, model, optim):
    scaler.scale(loss).backward(); scaler.step(optim); scaler.update(); optim.zero_grad()
def accumulated(loss, model, optim):
    loss.backward()
    printed.append(model.weight.grad.norm().item())
    optim.step()
def kept_as_zeros(loss, model, optim):
    loss.backward(); optim.step(); optim.zero_grad(set_to_none=False)
def twice(loss, model, optim):
    loss.backward(retain_graph=True)
    first = model.weight.grad.norm().item()
    loss.backward()
    printed.append(first); printed.append(model.weight.grad.norm().item()); step(optim)
def by_grad(loss, model, optim):
    grads = torch.autograd.grad(loss, [model.weight, model.bias], retain_graph=True)
    kept.append([tuple(grad.shape) for grad in grads])
    loss.backward(); step(optim)
def with_a_seed(loss, model, optim):
    loss.backward(torch.tensor(0.5)); step(optim)
def of_two(loss, model, optim):
    torch.autograd.backward([loss, loss / 3]); step(optim)
def some_inputs(loss, model, optim):
    loss.backward(inputs=[model.weight]); step(optim)
def in_an_output(loss, model, optim):
    out = Output(loss=loss, logits=None)
    out.loss.backward(); printed.append(out["loss"].item()); step(optim)
def shown(loss, model, optim):
    printed.append(float(f"{loss:.5f}")); assert "grad_fn" in repr(loss)
    assert type(loss).__name__ != "Pending"
    loss.backward(); step(optim)
def stored(loss, model, optim):
    assert loss.dim() == 0 and loss.requires_grad and loss.dtype == torch.float32 and isinstance(loss, torch.Tensor)
    loss.backward()
    printed.append(pickle.loads(pickle.dumps(loss.detach())).item()); file = io.BytesIO()
    torch.save({"loss": loss}, file); file.seek(0); printed.append(torch.load(file)["loss"].item()); step(optim)
def looked_at_on_the_way(loss, model, optim):
    model.bias.register_hook(lambda grad: printed.append(loss.item()))
    loss.backward(); step(optim)
def discarded(loss, model, optim):
    for _ in range(10):
        F.cross_entropy(model(x[:4]), y[:4])
    loss.backward(); step(optim)
def all_ignored(loss, model, optim):
    loss.backward(); step(optim)
    nothing = F.cross_entropy(model(x[:4]), torch.full((4,), 2), ignore_index=2)
    nothing.backward(); printed.append(model.weight.grad.norm().item()); optim.zero_grad()
ALL = [straight, read_before, halved, scaled_by_a_tensor, in_place, added, listed, stacked, exponential, scaler_used,
       accumulated, kept_as_zeros, twice, by_grad, with_a_seed, of_two, some_inputs, in_an_output, shown, stored,
       looked_at_on_the_way, discarded, all_ignored, compiled]
saved = []
for habit in ALL:
    torch.manual_seed(5)
    model = nn.Linear(6, 3).to("cuda")
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b in DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True):
        if habit is compiled:
            loss = compiled(model(a), b)
            straight(loss, model, optim)
        else:
            loss = F.cross_entropy(model(a), b, ignore_index=2)
            habit(loss, model, optim)
        print(habit.__name__, "loss", loss.item(), *printed)
        printed.clear()
    kept.clear()
    saved += [p.detach() for p in model.parameters()]
torch.save(saved, sys.argv[1])
"""
)


def test_every_use_of_a_loss_under_way(work):
    lines, weights = plain(work, HABITS)
    for count in (2, 4):
        same_run(work, HABITS, lines, weights, count)


EARLY = (
    HEAD
    + """
from lumi_moai.runtime.parallel.under_way import Sums
early = []
own = Sums.correction
Sums.correction = lambda sums: early.append(own(sums)) or early[-1]
x, y = torch.randn(12, 6), torch.tensor([0, 1, 2, 2] * 3)
model = nn.Linear(6, 3)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for habit in ("straight", "accumulated", "read"):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True):
        loss = F.cross_entropy(model(a), b, ignore_index=2)
        if habit == "read":
            loss.item()
        loss.backward()
        if habit != "accumulated":
            optim.step()
            optim.zero_grad()
    print(habit, len(early))
    early.clear()
"""
)


def test_only_a_plain_backward_begins_before_the_sums_are_there(work):
    run = Run(work, launch(2), Wishes(self_check=False))
    ranks = run.ranks(submitit(2), run.script(EARLY))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    # The first batch waits: no count is known yet. Accumulated gradients wait from the second batch on.
    assert ranks[0].out.splitlines() == ["straight 2", "accumulated 1", "read 0"]
