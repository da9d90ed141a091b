"""BatchNorm in training over 2 and 4 ranks: the losses, weights and running statistics of one device."""

import pytest
from one_device import plain, same_run
from test_runtime_parallel import HEAD

# Batches of 5, 5 and 3 rows (on 4 ranks one rank has none of the last), images and plain rows, a cumulative average,
# no running statistics, a module in evaluation inside the training loop, evaluation between the epochs.
NORMS = (
    HEAD
    + """
torch.set_default_dtype(torch.float64)
x = torch.randn(13, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 3 + 2
y = torch.randn(13, 2, generator=torch.Generator().manual_seed(2))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.images = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.free = nn.BatchNorm2d(4, track_running_stats=False, affine=False)
        self.mean, self.last = nn.BatchNorm1d(16, momentum=None), nn.Linear(16, 2)
        self.fixed, self.group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
    def forward(self, x):
        self.fixed.eval()
        x = self.group(self.fixed(self.free(torch.relu(self.images(self.first(x))))))
        return self.last(self.mean(x.flatten(1)))
model = Net().cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
train = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
for epoch in range(3):
    model.train()
    for a, b in train:
        loss = F.mse_loss(model(a), b)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item()}")
        torch.save(model.state_dict(), sys.argv[1])
    model.eval()
    with torch.no_grad():
        print(f"held out {F.mse_loss(model(x), y, reduction='sum').item()}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_statistics_are_those_of_the_global_batch(work):
    lines, weights = plain(work, NORMS)
    for count in (2, 4):
        _, ranks = same_run(work, NORMS, lines, weights, count)
        assert ranks[0].err.count("BatchNorm takes mean and variance of the global batch") == 1
        assert "a count read" not in ranks[0].err, "a state dict takes the number of batches, the script reads none"


def test_a_weight_that_is_spread_gets_the_gradient_of_the_global_batch(work):
    """In layers that the script calls by itself, as a step of Lightning does, nothing has gathered it before."""
    text = NORMS.replace("def forward", "def step").replace("model(", "model.step(")
    text = text.replace("torch.no_grad()", "torch.inference_mode()")
    same_run(work, text, *plain(work, text), 2, layout="fsdp")


TEACHER = (
    HEAD
    + """
import copy
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).cuda()
teacher = copy.deepcopy(model)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for a, b in DataLoader(TensorDataset(torch.randn(13, 4), torch.randn(13, 2)), batch_size=5):
    with torch.no_grad():
        soft = teacher(a)
    loss = F.mse_loss(model(a), b) + F.mse_loss(model(a), soft)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"loss {loss.item()} {[each.sum().item() for each in teacher.buffers()]}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_the_self_check_leaves_the_statistics_of_a_copied_teacher_alone(work):
    same_run(work, TEACHER, *plain(work, TEACHER), 2)


AHEAD = (
    HEAD
    + """
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
def ahead(loader):
    it = iter(loader)
    held = next(it, None)
    while held is not None:
        now, held = held, next(it, None)
        yield now
for epoch in range(2):
    for a, b in ahead(DataLoader(TensorDataset(torch.randn(20, 4), torch.randn(20, 2)), batch_size=6)):
        loss = F.mse_loss(model(a), b)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item()} {[each.double().sum().item() for each in model.buffers()]}")
torch.save(model.state_dict(), sys.argv[1])
"""
)


@pytest.mark.parametrize("computed", ["model(a)", "F.batch_norm(model(a), None, None, training=True)"])
def test_statistics_are_of_the_batch_that_is_computed_not_of_a_smaller_one_fetched_ahead(work, computed):
    """The last batch has two rows: one of three ranks has none of it, and left its rows of the batch before out."""
    text = AHEAD.replace("model(a)", computed)
    same_run(work, text, *plain(work, text), 3)
