"""A rank's rows computed in pieces give the one-device result, on 1, 2 and 4 ranks, whole or spread.

The CPU never runs out of device memory: where a test says so, the model itself raises torch's error when it is given
more rows than would fit.
"""

import json

import pytest
import torch
from one_device import assert_same_weights, plain, same, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

HEAD = """
import os, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
on_ranks = "WORLD_SIZE" in os.environ
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
chance = torch.Generator().manual_seed(1)
x, y = torch.randn(21, 6, generator=chance), torch.randn(21, 3, generator=chance)
tokens, targets = (torch.randint(0, 11, (21, 5), generator=chance) for _ in "ab")
for row in range(21):
    targets[row, : row % 5] = -100
"""

# Losses outside and inside of the model, made of one and of several terms; outputs in a dict; models in turn, one fed by
# the other; accumulation; a hook on a gradient; a model that the script calls twice in one step.
KINDS = (
    HEAD
    + """
class Language(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.extra = extra
    def forward(self, tokens, *, labels, factor=1.0):
        scores = self.head(torch.tanh(self.table(tokens))) * factor
        loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten())
        if self.extra:
            loss = loss + 0.1 * (scores**2).mean() + 0.01 * sum((p**2).sum() for p in self.parameters())
        return {"loss": loss, "scores": scores, "note": "fine"}
saved = []
for extra in False, True:
    model = Language(extra).cuda()
    optim = torch.optim.AdamW(model.parameters(), lr=0.05)
    for step, (a, b) in enumerate(DataLoader(TensorDataset(tokens, targets), batch_size=8, shuffle=True)):
        out = model(a, labels=b, factor=0.5)
        (out["loss"] / 2).backward()
        print(f"{extra} loss {out['loss'].item()} {float((out['scores'] ** 2).mean())} {out['note']}")
        if step % 2:
            print(f"norm {nn.utils.clip_grad_norm_(model.parameters(), 0.5).item()}")
            optim.step()
            optim.zero_grad()
    saved += list(model.parameters())
makes, judges = nn.Linear(6, 3).cuda(), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).cuda()
optims = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (makes, judges)]
if HOOK:
    judges[0].weight.register_hook(lambda grad: grad.clamp(-0.01, 0.01) if lumi_moai is None else grad * 2)
for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
    real, fake = judges(b), judges(makes(a).detach())
    judged = F.softplus(-real).mean() + F.softplus(fake).mean()
    optims[1].zero_grad()
    judged.backward()
    optims[1].step()
    made = F.softplus(-judges(makes(a))).mean()
    optims[0].zero_grad()
    made.backward()
    optims[0].step()
    print(f"in turn {judged.item()} {made.item()}")
saved += [*makes.parameters(), *judges.parameters()]
torch.save([torch.tensor(p.tolist()) for p in saved], sys.argv[1])
"""
)


@pytest.mark.parametrize("hook", [True, False], ids=["whole", "spread"])
def test_losses_of_every_kind_in_pieces(work, hook):
    text = KINDS.replace("HOOK", str(hook))
    lines, weights = plain(work, text)
    for count, layout in (
        [(1, "micro_batches=3"), (2, "replicate,micro_batches=2")] if hook else [(2, "fsdp,micro_batches=2")]
    ):
        _, ranks = same_run(work, text, lines, weights, count, layout=layout)
        assert ranks[0].err.count("micro-batches, each once more in backward") == 1


# Evaluated after each epoch, with a graph that nobody goes back through.
EVALUATED = (
    HEAD
    + """
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).cuda()
optim = torch.optim.SGD(model.parameters(), lr=0.1)
def held_out():
    model.eval()
    print(f"held out {sum(F.mse_loss(model(a), b).item() for a, b in DataLoader(TensorDataset(x, y), batch_size=5))}")
    model.train()
for epoch in range(2):
    for step, (a, b) in enumerate(DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)):
        if step % 2 == 0:
            held_out()
        loss = F.mse_loss(model(a), b)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item()}")
    held_out()
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_an_evaluation_without_no_grad_has_rows_of_its_own(work):
    same_run(work, EVALUATED, *plain(work, EVALUATED), 2, layout="replicate,micro_batches=2")


# MoAI's example, scaled down: its batch of 512 on 16 devices leaves 32 rows a rank, and 8 fit.
FITS = (
    HEAD
    + """
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    def forward(self, x):
        if on_ranks and len(x) > 8:
            raise torch.OutOfMemoryError("HIP out of memory")
        return self.net(x)
x, y = torch.randn(256, 6, generator=chance), torch.randn(256, 3, generator=chance)
model = Small().cuda()
optim = torch.optim.AdamW(model.parameters(), lr=0.05)
for epoch in range(2):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True):
        loss = F.mse_loss(model(a), b)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item()}")
torch.save([p.detach() for p in model.parameters()], sys.argv[1])
"""
)


def test_32_rows_a_rank_of_which_8_fit(work):
    lines, _ = plain(work, FITS)
    run = Run(work / "moai", launch(4))
    ranks = run.ranks(submitit(4), run.script(FITS), str(run.folder / "weights.pt"))
    assert [rank.code for rank in ranks] == [0] * 4, ranks[0].err
    assert ranks[0].err.count("ran out of device memory") == 2
    assert "computes its rows in 4 micro-batches" in ranks[0].err
    assert json.loads((run.folder / "micro" / "rank3.json").read_text()) == {"micro_batches": 4, "world_size": 4}
    assert json.loads((run.folder / "plan.json").read_text())["plan"]["micro_batches"] == 4
    again = run.ranks(submitit(4, job="78"), run.script(FITS), str(run.folder / "weights.pt"))
    assert [rank.code for rank in again] == [0] * 4, again[0].err
    assert "ran out of device memory" not in again[0].err
    for printed in (ranks[0].out, again[0].out):
        for line, expected in zip(printed.splitlines(), lines, strict=True):
            same(line, expected)


# Memory that runs out in backward: the step goes on in pieces, from the gradients that the script's loss sent.
IN_BACKWARD = FITS.replace(
    "class Small",
    """class Full(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, grad):
        if on_ranks and len(grad) > 8:
            raise torch.OutOfMemoryError("HIP out of memory")
        return grad
class Small""",
).replace(
    """        if on_ranks and len(x) > 8:
            raise torch.OutOfMemoryError("HIP out of memory")
        return self.net(x)""",
    """        return self.net[2](Full.apply(self.net[1](self.net[0](x))))""",
)


def test_memory_that_runs_out_in_backward(work):
    text = IN_BACKWARD.replace("batch_size=128", "batch_size=64")
    lines, weights = plain(work, text)
    run = Run(work / "both", launch(2))
    ranks = run.ranks(submitit(2), run.script(text), str(run.folder / "weights.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert all("computes its rows in 4 micro-batches" in rank.err for rank in ranks)
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)
    # A loss that reaches the weights past the model cannot be made again in part.
    run = Run(work / "past", launch(1))
    (rank,) = run.ranks(submitit(1), run.script(text.replace("b)", "b) + (model.net[0].weight ** 2).sum()")), "w.pt")
    assert rank.code == 1
    assert "start the run once more, it will compute each rank's rows in 2 micro-batches" in rank.err


# A loss by hand in the model is of all rows, and a piece of them would not give it.
BY_HAND = IN_BACKWARD.replace(
    """    def forward(self, x):
""",
    """    def forward(self, x, y):
        FORWARD
""",
).replace(
    "        return self.net[2](Full.apply(self.net[1](self.net[0](x))))",
    """        apart = ((self.net[2](Full.apply(self.net[1](self.net[0](x)))) - y) ** 2).sum(1)
        return (apart * (y[:, 0] > 0)).sum() / (y[:, 0] > 0).sum()""",
)


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_memory_that_runs_out_where_a_model_adds_up_its_loss_is_told(work, place):
    full = "if on_ranks and len(x) > 8: raise torch.OutOfMemoryError('HIP out of memory')"
    text = BY_HAND.replace("FORWARD", full if place == "forward" else "pass")
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(text.replace("F.mse_loss(model(a), b)", "model(a, b)")), "w.pt")
    assert [rank.code for rank in ranks] == [1, 1]
    said = "".join(rank.err for rank in ranks)
    assert "the forward of Small makes a number of the batch by hand" in said
    assert "Traceback" not in said


def test_weights_in_parts_ask_for_another_start_with_smaller_pieces(work):
    """The others are in the middle of an exchange with the rank whose memory ran out."""
    lines, _ = plain(work, FITS)
    run = Run(work / "spread", launch(4), Wishes(layout=Layout.parse("fsdp")))
    slurm = {"LUMI_MOAI_REQUEUE": "1", "SLURM_JOB_ID": "5"}
    for start, pieces in enumerate((2, 4)):
        mine = [{**each, **slurm, "SLURM_RESTART_COUNT": str(start)} for each in submitit(4, str(77 + start))]
        ranks = run.ranks(mine, run.script(FITS), "weights.pt")
        assert all(rank.code for rank in ranks)
        said = "".join(rank.err for rank in ranks)
        assert f"the job asks to be queued again, and will compute each rank's rows in {pieces} micro-batches" in said
        assert (run.folder / "checkpoints/requeue-5").read_text() == f"{start}\n"
    ranks = run.ranks(submitit(4, "79"), run.script(FITS), str(run.folder / "weights.pt"))
    assert [rank.code for rank in ranks] == [0] * 4, ranks[0].err
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)


REFUSED = (
    HEAD
    + """
class Says(nn.Module):
    def __init__(self, say):
        super().__init__()
        self.net, self.say = nn.Linear(6, 3), say
        self.register_buffer("count", torch.zeros(()))
    def forward(self, x, *more):
        return self.say(self, self.net(x))
def keeps(model, out):
    model.aux = out.mean()
    return out
def counts(model, out):
    model.count += 1
    return out
MODELS = {
    "batchnorm": nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)),
    "rows": Says(lambda model, out: out.t()),
    "sum": Says(lambda model, out: (out, (out > 0).sum())),
    "keeps": Says(keeps),
    "counts": Says(counts),
    "no rows": nn.Linear(6, 3),
    "differs": Says(lambda model, out: (out, int(torch.randint(0, 10**6, ())))),
    "hooked": Says(lambda model, out: out),
    "twice": Says(lambda model, out: torch.tanh(out)),
    "changed": Says(lambda model, out: out),
}
optim = torch.optim.SGD([p for model in MODELS.values() for p in model.parameters()], lr=0.1)
MODELS["hooked"].net.register_forward_hook(lambda module, args, out: None)
for name, model in MODELS.items():
    for a, b in DataLoader(TensorDataset(x, y), batch_size=21):
        a = a.t().contiguous()[:, :6] if name == "no rows" else a
        try:
            loss = model(a)
            if name == "twice":
                torch.autograd.grad(loss.sum(), list(model.parameters()), create_graph=True)
            if name == "changed":
                with torch.no_grad():
                    model.net.weight += 1
                loss.sum().backward()
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")
"""
)


def test_models_that_cannot_be_cut(work):
    run = Run(work, launch(1), Wishes(layout=Layout.parse("micro_batches=2")))
    (rank,) = run.ranks(submitit(1), run.script(REFUSED))
    assert rank.code == 0, rank.err
    said = dict(line.split(": RequestError: ") for line in rank.out.splitlines())
    words = {
        "batchnorm": "1 is a BatchNorm1d, which needs all rows at once",
        "rows": "of 11 rows it makes an output of shape (3, 11)",
        "sum": "it returns a whole number for the batch",
        "keeps": "aux keeps a result of forward",
        "counts": "its forward changes the buffer count with each batch",
        "no rows": "none of its tensors has the 21 rows",
        "differs": "it returns a int that differs from piece to piece",
        "hooked": "net has a hook on its forward",
        "twice": "torch.autograd.grad of weights with create_graph=True would be of a part of the batch",
        "changed": "a weight of Says was changed between its forward and its backward",
    }
    assert list(said) == list(words)
    assert [said[name] for name in words if words[name] not in said[name] or "micro" not in said[name]] == []
