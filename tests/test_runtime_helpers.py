"""Libraries that make rows of rows for the script: it goes on to count them as those of all ranks."""

import textwrap

import pytest
from one_device import plain, same_run

HEAD = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, "SITE")
import lumi_moai
lumi_moai.enable_advanced_parallelization()
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(3)
x, y = torch.randn(19, 3, 4, 4), torch.randint(0, 3, (19,))
net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True)
"""
END = """
torch.save([weight.detach() for weight in net.parameters()], sys.argv[1])
"""
# What a library gives back for a batch is counted: its rows, its mean, a loss by hand over it, noise of its shape. Some ranks have as many rows as
# there are scores, others have not: what a library takes apart is no row, so nobody waits for others there.
HELPED = (
    HEAD
    + """
from pictures import Turn, apart, columns, noised
from einops import reduce
turn = Turn()
for epoch in range(2):
    seen = total = right = 0
    for some, label in loader:
        some = turn(some)
        out = net(some)
        far = columns(noised(out, torch.randn(out.shape)))
        loss = F.cross_entropy(out, label) + 0.1 * (far ** 2).sum() / len(far)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        turned, each, middle, first = apart(out.detach())
        print(turned.shape[0], turned.sum().item(), *(float(one.shape[-1]) for one in (*each[:1], middle, first)))
        middle.sum().item(), first.sum().item(), [one.sum().item() for one in each]  # as many as it has rows on each rank
        seen += some.size(0)
        total += loss.item() * len(some)
        right += (out.argmax(1) == label).sum().item()
        print(loss.item(), seen, total / seen, right / seen, some.mean().item(), out.max().item(), far.t().std(0).sum().item())
        print(reduce(some, "b c h w -> c", "mean").tolist(), reduce(out, "b c -> c", "max").tolist(), reduce(some, "b c h w -> b", "sum").sum().item())
"""
    + END
)
# Rows that meet other rows of the batch, in place and not, in some steps only: the first step does not show it.
MIXED = (
    HEAD
    + """
import numpy as np
from timm.data.mixup import Mixup
np.random.seed(2)
mix = Mixup(MODE)
for step in range(2):
    for number, (some, label) in enumerate(loader):
        if number:
            mixed, wanted = mix(some, label)
            print(len(mixed), mixed.mean().item(), some.mean().item(), wanted.sum(0).tolist(), (wanted.argmax(1) == label).sum().item())
            loss = F.cross_entropy(net(mixed), wanted) + F.cross_entropy(net(some), label)
        else:
            loss = F.cross_entropy(net(some), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item())
"""
    + END
)
# A loss of a library that adds up the rows: each rank's own sums passed the self-check where halves of a batch are alike.
ADDED_UP = (
    HEAD
    + """
from segment.losses import BatchDice
dice = BatchDice()
for step in range(2):
    for some, label in loader:
        loss = F.cross_entropy(net(some), label) + dice(net(some), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item())
"""
    + END
)
LIBRARIES = {
    "segment.labels": """
        import torch
        def one_hot(labels, classes):
            return torch.zeros(size=(labels.shape[0], classes)).scatter_(dim=1, index=labels[:, None], value=1)
    """,
    "segment.losses": """
        import torch
        from torch import nn
        from .labels import one_hot
        class BatchDice(nn.Module):
            def forward(self, out, labels):
                wanted, found = one_hot(labels, out.shape[1]), out.softmax(1)
                both = torch.sum(wanted * found, dim=[0])
                return (1 - (2 * both + 1e-5) / (wanted.sum(0) + torch.sum(found, dim=[0]) + 1e-5)).mean()
    """,
    "pictures": """
        import torch
        from torch import nn
        class Turn(nn.Module):
            def forward(self, pictures):
                rows = pictures.shape[0]
                assert type(rows) is int
                turned = torch.where(torch.rand(rows, 2).mean(1).view(-1, 1, 1, 1) < 0.5, pictures.flip(-1), pictures)
                return torch.cat([turned[:, :1], turned[:, 1:].clamp(-1, 1)], dim=1)
        def noised(rows, noise):
            return 0.9 * rows + 0.1 * noise.to(rows.dtype)
        def apart(rows):
            return torch.stack(rows.unbind(1)), [each * 1 for each in rows], rows.mean(0, keepdim=True) * 1, rows[0] * 1
        def columns(rows):
            return rows.reshape(rows.shape[0], -1).permute(1, 0).contiguous().transpose(0, 1)
    """,
    "einops": """
        def reduce(tensor, pattern, how):
            before, after = (side.split() for side in pattern.split("->"))
            gone = tuple(dim for dim, name in enumerate(before) if name not in after)
            return tensor.amax(gone) if how == "max" else getattr(tensor, how)(gone)
    """,
    "timm.data.mixup": """
        import numpy as np, torch
        class Mixup:
            def __init__(self, mode):
                self.mode = mode
            def __call__(self, x, target):
                lam = np.random.beta(0.8, 0.8, size=len(x)) if self.mode == "elem" else np.random.beta(0.8, 0.8)
                if self.mode == "batch":
                    x.mul_(lam).add_(x.flip(0).mul_(1 - lam))
                else:
                    before = x.clone()
                    for place in range(len(x)):
                        x[place] = x[place] * lam[place] + before[len(x) - place - 1] * (1 - lam[place])
                    lam = torch.tensor(lam, dtype=x.dtype).unsqueeze(1)
                wanted = torch.nn.functional.one_hot(target, 3).to(x.dtype)
                return x, wanted * lam + wanted.flip(0) * (1 - lam)
    """,
}


@pytest.fixture
def site(work):
    """A folder of installed libraries: those of the tests have no helpers, so these stand in."""
    for name, text in LIBRARIES.items():
        path = work / "site-packages" / name.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parents[: name.count(".")]:
            (parent / "__init__.py").touch()
        path.with_suffix(".py").write_text(textwrap.dedent(text))
    return work / "site-packages"


@pytest.mark.parametrize("count", [2, 3])
def test_rows_that_a_library_gives_back_are_counted(work, site, count):
    script = HELPED.replace("SITE", str(site))
    same_run(work, script, *plain(work, script), count)


@pytest.mark.parametrize("count", [2, 3])
def test_losses_of_a_library_are_followed_as_the_scripts_own(work, site, count):
    script = ADDED_UP.replace("SITE", str(site))
    same_run(work, script, *plain(work, script), count)


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_rows_are_mixed_with_those_of_all_ranks(work, site, mode):
    script = MIXED.replace("SITE", str(site)).replace("MODE", repr(mode))
    same_run(work, script, *plain(work, script), 2)
