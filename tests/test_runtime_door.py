"""Every way into the runtime: our line, MoAI's, none at all; and what is left alone or turned away."""

import subprocess
import sys

import pytest
import torch
from one_device import plain, same
from runtime_ranks import ColdRun, Run, launch, submitit

from lumi_moai.plan import Wishes
from lumi_moai.runtime.parallel import need, one_device

TRAIN = """
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(7)
x = torch.randn(13, 4)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).cuda()
optim = torch.optim.AdamW(model.parameters(), lr=0.1)
for (rows,) in DataLoader(TensorDataset(x), batch_size=6, shuffle=True, drop_last=True):
    loss = model(rows.cuda()).pow(2).mean()
    loss.backward()
    optim.step()
    model.zero_grad(set_to_none=True)
    print(f"Loss: {loss.item()}")
"""
OPTIONS = "pipeline_parallel=True, num_stages='auto', num_micro_batches='auto', activation_recomputation='auto'"
DOORS = {
    "ours": "import torch, lumi_moai\nlumi_moai.enable_advanced_parallelization()",
    "moai": f"import torch\ntorch.moreh.option.enable_advanced_parallelization({OPTIONS})",
    "moai 2025": "import torch\ntry:\n    import moreh\n    torch.moreh.option.enable_advanced_parallelization()\n"
    "except ImportError:\n    raise SystemExit('no driver')\nassert torch.version.moreh",
    "moai 2023": "from moreh.driver.common import config\nimport torch\n"
    "config.set_config('enable_something_else', True)\n"
    "torch.moreh.option.parallelizer_init(mixed_precision=False, distribute_parameter=False, pipeline_parallel=False,"
    " num_micro_batches=4, tensor_parallel=False, tensor_parallel_group_size=1, initialized_on_accelerator=False)\n"
    "ones = torch.ones(2)\nassert torch.moreh.pipeline_assign(ones) is ones",
}
NO_LINE = "import torch"


def start(work, text, *, environment=None, kind=Run, **wishes):
    run = kind(work, launch(2), Wishes(**wishes))
    environments = [{**each, **(environment or {})} for each in submitit(2)]
    return run.ranks(environments, run.script(text))


def trained_as_one(ranks, lines):
    """Assert that the ranks printed what one device prints."""
    assert [rank.code for rank in ranks] == [0, 0], "\n".join(rank.err for rank in ranks)
    assert ranks[1].out == ""
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)
    assert "global batch 6 is 3 rows a rank" in ranks[0].err


def expected(work):
    saved = f"{NO_LINE}\n{TRAIN}\nimport sys; torch.save([], sys.argv[1])"
    return plain(work, saved)[0]


def test_every_door_leads_to_the_same_training(work):
    lines = expected(work)
    for name, door in DOORS.items():
        ranks = start(work / name.replace(" ", "-"), f"{door}\n{TRAIN}", kind=ColdRun)
        trained_as_one(ranks, lines)
        assert ("setting enable_something_else=True has no meaning here" in ranks[0].err) == (name == "moai 2023")
    trained_as_one(start(work / "auto", f"{NO_LINE}\n{TRAIN}", mode="auto"), lines)
    switch = {"MOREH_ENABLE_ADVANCED_PARALLELIZATION": "1"}
    trained_as_one(start(work / "switch", f"{NO_LINE}\n{TRAIN}", environment=switch), lines)


DISTRIBUTED = """
import os, torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
{first}
rows = TensorDataset(torch.arange(8.0)[:, None])
sampler = DistributedSampler(rows, shuffle=False)
model = DistributedDataParallel(nn.Linear(1, 1).cuda())
for (x,) in DataLoader(rows, batch_size=2, sampler=sampler):
    model(x).mean().backward()
print(dist.get_rank(), x.tolist(), hasattr(torch, "moreh"))
dist.destroy_process_group()
"""


def test_a_script_that_is_distributed_itself_is_left_alone(work):
    ranks = start(work, DISTRIBUTED.format(first="dist.init_process_group('nccl')"), mode="script")
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert [rank.out for rank in ranks] == ["0 [[4.0], [6.0]] False\n", "1 [[5.0], [7.0]] False\n"]
    # Without the option too, as long as it does not call the line.
    ranks = start(work / "line", DISTRIBUTED.format(first="dist.init_process_group('nccl')"))
    assert [rank.out for rank in ranks] == ["0 [[4.0], [6.0]] True\n", "1 [[5.0], [7.0]] True\n"]


LINE = "import lumi_moai; lumi_moai.enable_advanced_parallelization()\n"


@pytest.mark.parametrize(
    ("text", "wishes", "words"),
    [
        (DISTRIBUTED.format(first="dist.init_process_group('nccl')"), {"mode": "auto"}, "makes a process group"),
        (DISTRIBUTED.format(first=""), {"mode": "auto"}, "shares out its data by a DistributedSampler"),
        ("import torch\nfrom torch.nn.parallel import DistributedDataParallel as DDP\n" + LINE + "DDP(torch.nn.Linear(1, 1))", {}, "wraps its model in DistributedDataParallel"),
        ("import torch\nfrom torch.distributed.fsdp import fully_shard\n" + LINE + "fully_shard(torch.nn.Linear(1, 1))", {}, "shards its model by fully_shard"),
        ("import torch\ntorch.distributed.init_process_group()\n" + LINE, {}, "makes a process group"),
    ],
    ids=["group", "sampler", "ddp", "fsdp", "group-then-line"],
)  # fmt: skip
def test_what_is_distributed_already_is_refused(work, text, wishes, words):
    refused(start(work, text, **wishes), words, "submit it with --parallel script")


def refused(ranks, *words):
    """Assert that the job ended with one sentence of ours, in rank 0's log and at most the same in the other's."""
    assert [rank.code for rank in ranks] == [1, 1]
    errors, other = ([line for line in rank.err.splitlines() if "certificate" not in line] for rank in ranks)
    assert len(errors) == 1, errors
    assert errors[0].startswith("lumi-moai: ")
    # A rank that waited in vain for a late rank 0 tells it too, lest nobody does.
    assert other in ([], errors)
    for each in words:
        assert each in errors[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch\ntorch.moreh.option.parallelizer_init(tensor_parallel=True)", "--layout tp=2"),
        ("import torch\ntorch.moreh.option.enable_advanced_parallelization(num_stage=2)", "did you mean 'num_stages'"),
        ("import torch, moreh.driver.common.config as config\ntorch.moreh.option.enable_advanced_parallelization()\n"
         "config.set_config('enable_activation_recomputation', True)", "put it before"),
        ("import torch\ntorch.__version__ = '2.4.1+rocm6'\n" + LINE, "this is PyTorch 2.4.1+rocm6; training on several devices needs PyTorch 2.7 or newer"),
    ],
    ids=["tensor-parallel-by-hand", "unknown-option", "late-config", "old-torch"],
)  # fmt: skip
def test_what_the_line_cannot_do_is_said_in_one_sentence(work, text, words):
    refused(start(work, text), words)


def test_without_torch_the_line_says_what_it_needs(work, monkeypatch):
    run = ColdRun(work, launch(2))
    monkeypatch.setattr(run, "command", lambda *words: [sys.executable, "-S", *ColdRun.command(run, *words)[1:]])
    refused(run.ranks(submitit(2), run.script(LINE)), "there is no torch here", "PyTorch 2.7 or newer")


@pytest.mark.parametrize(
    ("version", "has_network", "lacks"),
    [
        ("2.7.0", True, None),
        ("2.13.0+cpu", True, None),
        ("2.6.0+cu124", True, "this is PyTorch 2.6.0"),
        ("1.13.1+cu116.moreh24.5.0", True, "this is PyTorch 1.13.1"),
        ("2.7.0", False, "without torch.distributed"),
    ],
)
def test_which_torch_is_enough(version, has_network, lacks):
    found = need.lacking(version, has_network=has_network)
    assert found is None if lacks is None else lacks in found


def test_a_script_outside_a_job_is_unharmed(work):
    (work / "train.py").write_text(f"{DOORS['ours']}\n{TRAIN.replace('.cuda()', '')}")
    done = subprocess.run([sys.executable, "train.py"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for line, wanted in zip(done.stdout.splitlines(), expected(work), strict=True):
        same(line, wanted)


@pytest.mark.parametrize(
    ("value", "numbers", "means"),
    [
        ("cuda:0", False, "cuda:3"),
        ("cuda:5", False, "cuda:3"),
        ("cuda", False, "cuda"),
        ("cpu", False, "cpu"),
        (torch.device("cuda", 0), False, torch.device("cuda", 3)),
        (torch.device("cuda"), False, torch.device("cuda")),
        (torch.device("cpu"), True, torch.device("cpu")),
        (0, True, 3),
        (0, False, 0),
        (True, True, True),
        (torch.float16, True, torch.float16),
    ],
)
def test_a_numbered_device_is_the_ranks_own(value, numbers, means):
    assert one_device.meant(value, 3, numbers=numbers) == means


def test_only_calls_of_the_one_device_are_changed():
    for is_on, expected_call in ((True, ((5, "cuda:3"), {"device": 3, "dtype": 0})), (False, ((5, "cuda:0"), {"device": 0, "dtype": 0}))):  # fmt: skip
        call = one_device.named(lambda *args, **kwargs: (args, kwargs), 3, lambda on=is_on: on)
        assert call(5, "cuda:0", device=0, dtype=0) == expected_call
