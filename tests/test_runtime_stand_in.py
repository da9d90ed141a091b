"""Where there is no GPU, what a script says of `cuda` means the CPU; a script of one's own DDP just runs."""

import re

import pytest
import torch
from runtime_ranks import Run, launch, submitit

from lumi_moai.runtime import stand_in

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU nothing stands in for it")

IDIOMS = """
import io, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*torch.jit.script.*deprecated.*")
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

assert torch.cuda.is_available() and torch.cuda.device_count() == 1 and torch.cuda.current_device() == 0
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
assert device == torch.device("cuda:0") == torch.device("cuda", 0) == torch.zeros(1).device
model = nn.Sequential(nn.Linear(4, 4, device="cuda"), nn.Linear(4, 4)).cuda().to("cuda").to(device).to("cuda:0", torch.float32)
x = torch.ones(2, 4).cuda(non_blocking=True).to("cuda", non_blocking=True).to(device=device).to(0).cuda(0).pin_memory()
assert x.is_cuda is False and x.device == device and x.to(x.device, torch.float64).dtype == torch.float64
made = [torch.tensor([1.0], device="cuda"), torch.randn(2, device=device), torch.empty(2, device="cuda:0", pin_memory=True)]
made += [torch.normal(0.0, 1.0, (2,), device="cuda")]
made += [torch.zeros_like(x, device="cuda"), x.new_zeros(2, device="cuda"), torch.arange(3, device=0)]
assert all(tensor.device == device for tensor in made)
with torch.device("cuda"):
    assert torch.zeros(1).device == device
torch.set_default_device("cuda")
assert torch.zeros(1).device == device
torch.set_default_device(None)

optim = torch.optim.AdamW(model.parameters())
scaler = torch.amp.GradScaler("cuda")
for (batch,) in DataLoader(TensorDataset(x), batch_size=2, pin_memory=True):
    with torch.amp.autocast("cuda", dtype=torch.bfloat16):
        out = model(batch.to(device))
    assert out.dtype == torch.bfloat16
    with torch.autocast(device_type="cuda", dtype=torch.float16, enabled=False):
        loss = model(batch).float().pow(2).mean()
    scaler.scale(loss).backward()
    scaler.step(optim)
    scaler.update()
with torch.autocast(device.type, dtype=torch.bfloat16):
    assert model(x).dtype == torch.bfloat16

Kind = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor
assert Kind([[1, 2]]).shape == (1, 2) and x.double().type(Kind).dtype == torch.float32
assert x.type("torch.cuda.LongTensor").dtype == torch.int64 and isinstance(x, torch.cuda.FloatTensor)

start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record(); end.record(); torch.cuda.synchronize(); end.synchronize()
assert start.elapsed_time(end) >= 0
with torch.cuda.stream(torch.cuda.Stream()), torch.cuda.device(0), torch.cuda.nvtx.range("step"):
    torch.cuda.current_stream().wait_stream(torch.cuda.Stream())
    x.record_stream(torch.cuda.current_stream())
torch.cuda.empty_cache(); torch.cuda.set_device(0); torch.cuda.reset_peak_memory_stats(); torch.cuda.manual_seed_all(1)
assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated() == 0
assert torch.cuda.get_device_name() == torch.cuda.get_device_properties(0).name == "CPU"
assert torch.cuda.mem_get_info()[1] == torch.cuda.get_device_properties(device).total_memory > 0
torch.cuda.set_rng_state_all(torch.cuda.get_rng_state_all())
assert torch.rand(1, generator=torch.Generator(device="cuda").manual_seed(1), device="cuda").item() == torch.rand(
    1, generator=torch.Generator().manual_seed(1)).item()
with torch.random.fork_rng():
    torch.rand(1)

file = io.BytesIO()
torch.save(model.state_dict(), file)
for where in ("cuda", "cuda:0", torch.device("cuda"), device, None, lambda storage, _: storage):
    file.seek(0)
    model.load_state_dict(torch.load(file, map_location=where))
file.seek(0)
torch.load(file, "cuda")

import copy, pickle
for kept in (pickle.loads(pickle.dumps(device)), copy.deepcopy(device), torch.device(type="cuda", index=0)):
    assert kept == device and isinstance(kept, torch.device) and type(kept) == torch.device
file = io.BytesIO()
torch.save({"device": torch.device("cuda:0")}, file)
file.seek(0)
assert torch.load(file, weights_only=True) == {"device": device}
def called(x: torch.Tensor, device: torch.device):
    return torch.zeros(3, device=device) + x.to(device)
assert torch.compile(called, backend="eager", fullgraph=True)(torch.ones(3), torch.device("cuda")).sum() == 3
assert torch.jit.script(called)(torch.ones(3), torch.device("cuda")).sum() == 3
with torch.device("meta"):
    assert torch.zeros(1).device.type == nn.Linear(1, 1).weight.device.type == "meta"
assert nn.Linear(2, 2, device="meta").to_empty(device="cuda").weight.device == device
assert torch._C._len_torch_function_stack() == 0  # nothing slows down every call

from torch.utils.checkpoint import checkpoint
checkpoint(model, x, use_reentrant=False).sum().backward()
print("all idioms mean the CPU")
"""

DDP = """
import os
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

rank, local_rank, world = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
torch.cuda.set_device(local_rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", local_rank))
assert (dist.get_rank(), dist.get_world_size()) == (rank, world)
torch.manual_seed(rank)  # DDP itself makes the weights equal
model = DDP(nn.Linear(4, 1).to(local_rank), device_ids=[local_rank])
optim = torch.optim.SGD(model.parameters(), lr=0.1)
data = TensorDataset(torch.arange(48.0).view(12, 4) / 48)
loader = DataLoader(data, batch_size=3, sampler=DistributedSampler(data, shuffle=False))
for (x,) in loader:
    assert len(x) == 3  # its own batch, not cut again
    loss = nn.functional.mse_loss(model(x.cuda(local_rank)), torch.ones(3, 1))
    optim.zero_grad()
    loss.backward()
    optim.step()
dist.barrier(device_ids=[local_rank])
total = loss.detach().clone()
dist.all_reduce(total)
print(f"rank {rank} of {world}: {total.item():.6f} {model.module.weight.sum().item():.6f} {loss.item() != total.item()}")
"""


def test_every_function_of_torch_with_a_device_is_in_the_table():
    owners = {torch: "torch", torch.Tensor: "torch.Tensor", torch.fft: "torch.fft", torch.nested: "torch.nested"}
    listed = {(owners[owner], name) for owner, names in stand_in._TAKE_DEVICE for name in names.split()}
    found = {
        (said, name)
        for owner, said in owners.items()
        for name in dir(owner)
        if re.search(r"\bdevice=None", str(getattr(getattr(owner, name), "__doc__", "")))
    }
    # Methods that are replaced one by one, and those of other devices.
    others = {("torch.Tensor", name) for name in ("cuda", "to", "ipu", "mtia", "xpu")} | {("torch", "Event")}
    assert found - others - listed == set()


def test_the_usual_idioms(work):
    run = Run(work, launch(1))
    (rank,) = run.ranks(submitit(1), run.script(IDIOMS))
    assert rank.code == 0, rank.err
    assert rank.out == "all idioms mean the CPU\n"


ACCELERATOR = """
import torch
# As in a build for GPUs on a machine without one.
torch._C._accelerator_getAccelerator = lambda: type(torch.zeros(1).device)("cuda")
asked = torch.accelerator
device = asked.current_accelerator().type if asked.is_available() else "cpu"
model = torch.nn.Linear(4, 4).to(device).cuda()
optimizers = [torch.optim.AdamW(model.parameters()), torch.optim.RMSprop(model.parameters())]
model(torch.ones(2, 4, device=device)).sum().backward()
for each in optimizers:
    each.step()
asked.synchronize()
asked.set_device_index(0)
assert asked.current_device_index() == 0 and not asked.current_stream().is_capturing() and asked.device_count() == 0
print("trained")
"""


def test_a_torch_built_for_gpus_does_not_ask_their_driver(work):
    (rank,) = (run := Run(work, launch(1))).ranks(submitit(1), run.script(ACCELERATOR))
    assert (rank.code, rank.out) == (0, "trained\n"), rank.err


@pytest.mark.parametrize("end", ["dist.destroy_process_group()", ""])
def test_a_ddp_script_gets_its_environment_and_nothing_else(work, end):
    run = Run(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(DDP + end))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    words = [rank.out.split(": ") for rank in ranks]
    assert [first for first, _ in words] == ["rank 0 of 2", "rank 1 of 2"]
    assert words[0][1] == words[1][1]
    assert ranks[1].err == ""


def test_a_library_with_compiled_programs_finds_those_for_the_cpu(tmp_path):
    run = Run(tmp_path, launch(1))
    run.script("import torch\nprint('while it is imported', torch.cuda.is_available())\n", "bitsandbytes.py")
    script = "import torch\nimport bitsandbytes\nprint('then', torch.cuda.is_available())\n"
    lines = "import lumi_moai\nlumi_moai.enable_advanced_parallelization()\n" + script
    (rank,) = run.ranks(submitit(1), run.script(lines))
    assert rank.out.splitlines() == ["while it is imported False", "then True"], rank.err
