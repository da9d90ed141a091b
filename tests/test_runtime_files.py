"""What a script writes on several ranks: the files of one device, whole, loadable without lumi-moai; and read again."""

import json
import os
import subprocess
import sys

import pytest
import torch
from one_device import assert_same_weights, plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

HEAD = """
import csv, json, logging, os, pickle, shutil, sys
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
out = Path(sys.argv[1]).parent / "out"
"""

# Everything that scripts do with files: checkpoints that rotate, the best model kept aside, whole modules, resuming from
# their own file, logs, arrays, tables, a file read again that was written before, safetensors, tensorboard, loguru.
FILES = (
    HEAD
    + """
import copy, dataclasses
from loguru import logger
from safetensors.torch import load_file, save_file, save_model
from torch.utils.tensorboard import SummaryWriter
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 6)
    def forward(self, x):
        return x + self.b(torch.tanh(self.a(x)))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight
        self.heat = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x) / self.heat
@dataclasses.dataclass
class Kept:
    weights: list
    epoch: int
out.mkdir()
os.makedirs(out / "a" / "b", exist_ok=True)
logger.remove()
logger.add(out / "loguru.log", format="{message}")
logging.basicConfig(filename=out / "logging.log", level="INFO", format="%(message)s")
model = Net().cuda()
optim = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optim, 1, 0.9)
scaler = torch.amp.GradScaler("cuda", enabled=False)
board = SummaryWriter(out / "board")
x = torch.randint(0, 7, (11,), generator=torch.Generator().manual_seed(1))
loader = DataLoader(TensorDataset(x, (x + 1) % 7), batch_size=4, shuffle=True)
best = None
def epochs(count):
    global best
    for epoch in range(count):
        for a, b in loader:
            loss = F.cross_entropy(model(a), b)
            optim.zero_grad()
            loss.backward()
            optim.step()
        scheduler.step()
        print(f"loss {loss.item()}")
        logger.info("epoch {}", epoch)
        logging.info("epoch %d", epoch)
        board.add_scalar("loss", loss.item(), epoch)
        with open(out / "log.txt", "a") as file:
            file.write(f"epoch {epoch}\\n")
        torch.save({"model": model.state_dict(), "optim": optim.state_dict(), "scheduler": scheduler.state_dict(),
                    "scaler": scaler.state_dict(), "kept": [tuple(model.parameters())]}, out / f"{epoch}.pt")
        if epoch > 0:
            os.remove(out / f"{epoch - 1}.pt")
        if best is None:
            best = copy.deepcopy(model.state_dict())
epochs(3)
board.close()
state = torch.load(out / "2.pt", map_location="cuda:0" if torch.cuda.is_available() else "cpu")
print(sorted(type(value).__name__ for value in state["model"].values()))
epochs(2)
model.load_state_dict(state["model"])
optim.load_state_dict(state["optim"])
scheduler.load_state_dict(state["scheduler"])
epochs(2)
torch.save(model, out / "module.pt")
torch.save(Kept([p.detach() for p in model.parameters()], 3), out / "kept.pt")
torch.save(best, out / "tmp.pt")
os.replace(out / "tmp.pt", out / "best.pt")
model.load_state_dict(torch.load(out / "best.pt"))
try:
    model.load_state_dict({"no": torch.ones(1)})
except RuntimeError as error:
    print("Unexpected key" in str(error), "Missing key" in str(error))
pickle.dump(model.state_dict(), open(out / "state.pkl", "wb"))
save_file({"w": model.blocks[0].a.weight, "x": torch.ones(2)}, out / "some.safetensors")
save_model(model, str(out / "all.safetensors"))
print(load_file(out / "some.safetensors")["w"].sum().item())
np.save(out / "array.npy", np.arange(5))
np.savez(out / "arrays.npz", a=np.arange(3))
print(np.load(out / "array.npy").sum())
(out / "text.txt").write_text("text")
print((out / "text.txt").read_text())
with open(out / "table.csv", "w", newline="") as file:
    csv.writer(file).writerow(["a", "b"])
json.dump({"a": 1}, open(out / "d.json", "w"))
print(json.load(open(out / "d.json")))
with open(out / "both.txt", "w+") as file:
    file.write("abc")
    file.seek(0)
    print(file.read())
shutil.copy(out / "text.txt", out / "copy.txt")
Path(out / "text.txt").rename(out / "renamed.txt")
print((out / "renamed.txt").read_text(), (out / "text.txt").exists())
(out / "copy.txt").unlink()
(out / "gone").mkdir()
(out / "gone" / "x").write_text("x")
shutil.rmtree(out / "gone")
try:
    torch.save(lambda: 0, out / "bad.pt")
except Exception as error:
    print(type(error).__name__)
try:
    torch.save(1, out / "nowhere" / "bad.pt")
except RuntimeError as error:
    print("does not exist" in str(error))
torch.save(model.state_dict(), sys.argv[1])
"""
)

READ = """
import sys, torch
class Block(torch.nn.Module): pass
class Net(torch.nn.Module): pass
class Kept: pass
assert "lumi_moai" not in sys.modules
module = torch.load(sys.argv[1] + "/module.pt", weights_only=False)
assert type(module).__name__ == "Net" and module.head.weight is module.embed.weight
kept = torch.load(sys.argv[1] + "/kept.pt", weights_only=False)
torch.save([[t.detach() for t in module.state_dict().values()], kept.weights], sys.argv[2])
assert "lumi_moai" not in sys.modules and not module._forward_pre_hooks and not module.blocks[0]._forward_hooks
assert all(type(t) is torch.nn.Parameter for t in module.parameters()) and all(type(t) is torch.Tensor for t in kept.weights)
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, *plain(folder, FILES)


def names(folder):
    found = (os.path.relpath(os.path.join(at, name), folder) for at, _, files in os.walk(folder) for name in files)
    return sorted("events" if "tfevents" in name else name for name in found) + [
        os.path.relpath(os.path.join(at, name), folder)
        for at, some, _ in sorted(os.walk(folder))
        for name in sorted(some)
    ]


@pytest.mark.parametrize(("layout", "count"), [("replicate", 2), ("fsdp", 2), ("fsdp", 4)])
def test_files_are_those_of_one_device(work, one, layout, count):
    folder, lines, weights = one
    run, _ = same_run(work, FILES, lines, weights, count, layout=layout)
    mine, theirs = run.folder / "out", folder / "out"
    assert names(mine) == [name for name in names(theirs) if name != "bad.pt"]  # a torn file, which is not left here
    for name in ("log.txt", "loguru.log", "logging.log", "table.csv", "d.json", "renamed.txt", "array.npy"):
        assert (mine / name).read_bytes() == (theirs / name).read_bytes(), name
    read = []
    for out in (mine, theirs):
        subprocess.run([sys.executable, "-c", READ, str(out), str(out.parent / "read.pt")], cwd=work, check=True)
        read.append(torch.load(out.parent / "read.pt"))
        read[-1].append(list(torch.load(out / "best.pt").values()))
        state = torch.load(out / "1.pt")
        read[-1].append(
            [*state["model"].values(), *(t for each in state["optim"]["state"].values() for t in each.values())]
        )
    for first, second in zip(*read, strict=True):
        assert_same_weights(first, second)
    saved = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pickle,sys; print({type(v).__name__ for v in pickle.load(open(sys.argv[1],'rb')).values()})",
            str(mine / "state.pkl"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert saved == "{'Tensor'}\n"
    assert json.loads((mine / "d.json").read_text()) == {"a": 1}


UNLIKE = (
    HEAD
    + """
from lumi_moai.runtime.here import here
from lumi_moai.runtime.parallel.files import writing
writing._PATIENCE_SECONDS = 1
rank = here().ranks.rank
assert os.environ.get("WANDB_MODE") == ("disabled" if rank else None)
if rank == {rank}:
    {act}
torch.save(1, sys.argv[1])
"""
)


@pytest.mark.parametrize(
    ("rank", "act", "sentence"),
    [
        (
            1,
            "Path('x').write_text('1'); Path('x').read_text()",
            "rank 1 reads {x}, which rank 0 has not written within 1 s;",
        ),
        (
            0,
            "Path('x').write_text('1'); Path('x').read_text(); os.remove('x')",
            "rank 0 is about to change {x}, which the script has looked at before, and another rank has",
        ),
    ],
)
def test_ranks_that_do_unlike_things_with_a_file_are_stopped(work, rank, act, sentence):
    run = Run(work, launch(2))
    text = UNLIKE.replace("{rank}", str(rank)).replace("{act}", act)
    ranks = run.ranks(submitit(2), run.script(text), str(work / "weights.pt"))
    assert [each.code for each in ranks] == [1, 1]
    assert sentence.replace("{x}", str(work / "x")) in ranks[rank].err


# Every rank is later than the one before, and looks before it writes.
LATE = (
    HEAD
    + """
import time
from lumi_moai.runtime.here import here
def late():
    time.sleep(0.4 * here().ranks.rank)
seen = []
for _ in range(2):
    late()
    number = 0
    while (out / f"run{number}").exists():
        number += 1
    (out / f"run{number}").mkdir(parents=True)
    (out / f"run{number}" / "kept").mkdir()
    late()
    old = sorted(out.glob("run*"))[:-1]
    for folder in old:
        shutil.rmtree(folder)
    late()
    names = sorted(os.listdir(out))
    (out / f"after-{len(names)}.txt").write_text("here")
    late()
    fresh = not os.path.isfile(out / "table.csv")
    with open(out / "table.csv", "a") as file:
        file.write("header\\n" * fresh + "row\\n")
    late()
    best = json.loads((out / "best.json").read_text()) if (out / "best.json").exists() else 0
    (out / "best.json").write_text(str(best + 1))
    seen.append((number, names, fresh, best))
os.write(2, json.dumps(seen).encode())
"""
)


def test_a_late_rank_does_not_see_what_comes_after(work):
    run = Run(work, launch(3))
    ranks = run.ranks(submitit(3), run.script(LATE), str(work / "weights.pt"))
    assert [each.code for each in ranks] == [0, 0, 0], ranks[0].err
    seen = [json.loads(each.err[each.err.index("[[") :]) for each in ranks]
    assert seen[0] == [
        [0, ["run0"], True, 0],
        [1, ["after-1.txt", "best.json", "run1", "table.csv"], False, 1],
    ]
    assert seen[1:] == seen[:1] * 2
    assert (work / "out" / "table.csv").read_text() == "header\nrow\nrow\n"


MEANWHILE = (
    HEAD
    + """
import io, threading
class Slow(io.BytesIO):
    def write(self, data):
        begun.set()
        over.wait(20)
        return super().write(data)
class Net(nn.Linear):
    def forward(self, x):
        rows.append(len(x))
        return super().forward(x)
begun, over, rows = threading.Event(), threading.Event(), []
model = Net(4, 2).to("cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for (x,) in DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4):
    begun.clear()
    over.clear()
    saver = threading.Thread(target=torch.save, args=({"one": torch.ones(3)}, Slow()))
    saver.start()
    begun.wait(20)
    loss = model(x.to("cuda")).pow(2).mean()
    over.set()
    saver.join()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
os.write(2, f"pieces of {sorted(set(rows))} rows".encode())
"""
)


def test_a_model_is_called_as_ever_while_a_thread_saves(work):
    """The thread that writes checkpoints saves all the time; a call past the runtime would take the batch in one piece."""
    run = Run(work, launch(1), Wishes(layout=Layout.parse("micro_batches=2")))
    (rank,) = run.ranks(submitit(1), run.script(MEANWHILE), str(work / "weights.pt"))
    assert rank.code == 0, rank.err
    assert "pieces of [2] rows" in rank.err, rank.err


ASIDE = (
    HEAD
    + """
import threading
out.mkdir()
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).to("cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(10):
    for (x,) in DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4):
        state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        saver = threading.Thread(target=torch.save, args=(state, out / f"{epoch}.pt"))
        saver.start()
        loss = model(x.to("cuda")).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        saver.join()
    kept = torch.load(out / f"{epoch}.pt")
    print(loss.item(), sum(value.sum().item() for value in kept.values()))
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_a_thread_that_saves_does_not_meet_the_other_ranks(work):
    """It would do so in the middle of a step, at another place on each rank; what is spread cannot be saved there."""
    same_run(work, ASIDE, *plain(work, ASIDE), 2)
    run = Run(work / "spread", launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(ASIDE), str(run.folder / "weights.pt"))
    assert ranks[0].code == 1
    assert "a thread saves weights that are spread over ranks" in "".join(rank.err for rank in ranks)
