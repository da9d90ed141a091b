"""What scripts do with a model ahead of training: they save it, or draw it for tensorboard."""

import subprocess
import sys

from one_device import plain, same_run

HEAD = """
import os, sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""

LOOP = """
for x, y in DataLoader(TensorDataset(torch.randn(11, 6), torch.randn(11, 3)), batch_size=4):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item()}")
torch.save([parameter.detach().clone() for parameter in model.parameters()], sys.argv[1])
"""

SAVED = (
    HEAD + "torch.save(model.state_dict(), 'first.pt')\nprint(torch.load('first.pt')['0.weight'].sum().item())\n" + LOOP
)


def test_a_model_that_is_spread_already_is_saved_ahead_of_training(work):
    lines, weights = plain(work, SAVED)
    same_run(work, SAVED, lines, weights, 2, layout="fsdp")


TRACED = (
    HEAD + "traced = torch.jit.trace(model, torch.zeros(1, 6))\nprint(traced(torch.ones(1, 6)).sum().item())\n" + LOOP
)


def test_a_trace_ahead_of_training_does_not_begin_it(work):
    lines, weights = plain(work, TRACED)
    same_run(work, TRACED, lines, weights, 2)


# Each rank reads another time.
BY_THE_CLOCK = """
import os, sys, time, torch
import lumi_moai
lumi_moai.enable_advanced_parallelization()
folder = f"runs/{time.time_ns()}"
if not os.path.exists(folder):
    os.makedirs(folder + "/kept")
with open(folder + "/log.txt", "w") as log:
    log.write("one")
with open(folder + "/log.txt") as log:
    print(log.read(), sorted(os.listdir(folder)), len(os.listdir("runs")))
torch.save({"a": torch.ones(2)}, folder + "/kept/first.pt")
print(torch.load(folder + "/kept/first.pt")["a"].sum().item(), os.path.getsize(folder + "/log.txt"))
os.remove(folder + "/log.txt")
print(sorted(os.listdir(folder)), os.path.exists(folder + "/log.txt"))
torch.save([torch.zeros(1)], sys.argv[1])
"""


def test_a_folder_with_the_time_in_its_name_is_that_of_rank_0(work):
    lines, weights = plain(work, BY_THE_CLOCK)
    same_run(work, BY_THE_CLOCK, lines, weights, 2)


# As `str(time.time())` is: with fewer digits where they would end in noughts.
BY_A_SHORT_CLOCK = """
import os, sys, torch
digits = "5" * (1 + int(os.environ.get("RANK", "0")))
import lumi_moai
lumi_moai.enable_advanced_parallelization()
folder = f"runs/1795323740.{digits}"
os.makedirs(folder, exist_ok=True)
with open(folder + "/hparams.yml", "w") as kept:
    kept.write("one")
print(os.listdir("runs"), os.listdir(folder))
torch.save([torch.zeros(1)], sys.argv[1])
"""


def test_a_folder_with_fewer_digits_of_the_time_is_that_of_rank_0(work):
    lines, weights = plain(work, BY_A_SHORT_CLOCK)
    same_run(work, BY_A_SHORT_CLOCK, lines, weights, 2)


# Rank 0 makes the folder well before the others ask for it, as Hugging Face's examples do with their `output_dir`.
ASKED_FOR = """
import os, sys, time, torch
from pathlib import Path
late = 2 * (os.environ.get("RANK", "0") != "0")
import lumi_moai
lumi_moai.enable_advanced_parallelization()
for folder, is_there in (("out", os.path.isdir), ("kept", lambda name: Path(name).is_dir())):
    time.sleep(late)
    if is_there(folder):
        sys.exit(f"{folder} is there already")
    os.makedirs(folder)
    print(is_there(folder))
torch.save([torch.zeros(1)], sys.argv[1])
"""


def test_a_folder_is_not_made_before_all_ranks_have_asked_for_it(work):
    lines, weights = plain(work, ASKED_FOR)
    same_run(work, ASKED_FOR, lines, weights, 2)


FAILED = """
import gc, os, sys
log = open(sys.argv[1], "w")
log.write("opened before torch was imported")
from lumi_moai.runtime import script, start
with start._frozen():
    pass
script._flush_files()
os._exit(1)  # as a rank that failed
"""


def test_what_a_file_holds_that_was_opened_before_torch_is_written(tmp_path):
    log = tmp_path / "log.txt"
    subprocess.run([sys.executable, "-c", FAILED, log], check=False)
    assert log.read_text() == "opened before torch was imported"
