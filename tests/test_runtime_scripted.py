"""`torch.jit.script`: what it compiles gives the one-device result."""

from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

HEAD = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
x, y = torch.randn(23, 6), torch.randint(0, 3, (23,))
"""
SCRIPTED = (
    HEAD
    + """
@torch.jit.script
def smooth(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    noise = torch.zeros(scores.size(0))
    return F.cross_entropy(scores, labels, label_smoothing=0.1) + noise.mean()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.norm = nn.Linear(6, 3), NORM
    def forward(self, x):
        return self.norm(torch.relu(self.net(x)))

model = torch.jit.script(Net())
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for a, b in DataLoader(TensorDataset(x, y), batch_size=5):
    loss = smooth(model(a), b)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item())
torch.save([each.detach() for each in model.parameters()], sys.argv[1])
"""
)


def test_scripted_functions_and_models(work):
    """The compiler stopped at functions that stand in the place of torch's."""
    text = SCRIPTED.replace("NORM", "nn.LayerNorm(3)")
    _, ranks = same_run(work, text, *plain(work, text), 2)
    assert "self-check of the first step: loss" in ranks[0].err


def test_a_scripted_batchnorm_is_refused(work):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(SCRIPTED.replace("NORM", "nn.BatchNorm1d(3)")))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "Net has a BatchNorm that torch.jit compiled" in "".join(rank.err for rank in ranks)
