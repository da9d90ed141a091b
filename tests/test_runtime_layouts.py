"""One script for one device in every layout that spreads a model's weights: the same losses, norms and weights."""

import json
import re
import socket

import layout_scripts as scripts
import pytest
import torch
from one_device import NUMBER, assert_same_weights, plain, same, same_run
from runtime_ranks import ColdRun, Run, launch, slurm, submitit
from test_runtime_parallel import HEAD
from torch import nn

from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel.layout import blocks


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("plain"), scripts.GPT)


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        ("fsdp,recompute=every-2", 2),
        ("zero2,offload,recompute=selective", 2),
        ("replicate,recompute=full", 2),
    ],
)
def test_a_transformer_trains_alike_in_every_layout(tmp_path, gpt, layout, count):
    lines, weights = gpt
    same_run(tmp_path, scripts.GPT, lines, weights, count, layout=layout)


def on_two_nodes(folder, layout, text):
    """A run of four ranks, and how they ended."""
    run = Run(folder, launch(4, nodes=2, devices_per_node=2), Wishes(layout=Layout.parse(layout)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = slurm(4, per_node=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    return run, run.ranks(nodes, run.script(text), str(run.folder / "weights.pt"))


def test_parts_within_a_node_and_copies_between_nodes(tmp_path, gpt):
    lines, weights = gpt
    run, ranks = on_two_nodes(tmp_path, "hsdp,recompute=full", scripts.GPT)
    assert [rank.code for rank in ranks] == [0] * 4, "\n".join(rank.err for rank in ranks)
    assert "2 copies of the model, each spread over 2 ranks" in ranks[0].err
    assert len(ranks[0].out.splitlines()) == len(lines)
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


def older(version):
    """GPT with a torch that calls itself *version*."""
    return scripts.GPT.replace("import lumi_moai\n", f"torch.__version__ = '{version}'\nimport lumi_moai\n", 1)


def test_gradients_in_parts_are_averages_where_the_cpus_library_adds_them_up(tmp_path, gpt):
    # Gloo of PyTorch 2.7 and 2.8 gives the sum for `reduce_scatter_tensor(..., op=AVG)`, without a word.
    same_run(tmp_path, older("2.8.0"), *gpt, 2, layout="fsdp")


def test_copies_of_parts_are_refused_on_the_cpu_of_an_older_torch(tmp_path):
    _, ranks = on_two_nodes(tmp_path, "hsdp", older("2.7.1"))
    assert [rank.code for rank in ranks] == [1] * 4
    assert any("(hsdp) need PyTorch 2.8 or newer where the CPU stands in, this is 2.7.1" in rank.err for rank in ranks)


COMPILES = pytest.mark.skipif(" " in torch.__file__, reason="torch's compiler cannot link from a path with a space")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("HABITS", "fsdp"),
        ("OPTIMIZERS", "fsdp"),
        pytest.param("TRAININGS", "zero2,compile", marks=COMPILES),
        ("FAMILIES", "fsdp,recompute=full"),
    ],
)
def test_what_scripts_do_with_weights_in_parts_is_as_on_one_device(tmp_path, name, layout):
    text = getattr(scripts, name)
    lines, weights = plain(tmp_path, text)
    same_run(tmp_path, text, lines, weights, 2, layout=layout, kind=ColdRun if "compile" in layout else Run)


# How often a block is computed, and in which type; the second model has no blocks.
COUNTED = (
    scripts.HEAD
    + """
class Block(nn.Module):
    calls = 0
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
    def forward(self, x):
        Block.calls += 1
        Block.type = self.a(x).dtype
        return x + self.b(torch.tanh(self.a(x)))
x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
model, small = nn.Sequential(*(Block() for _ in range(3))), nn.Linear(4, 4)
optim = torch.optim.SGD([*model.parameters(), *small.parameters()], lr=0.1)
for (rows,) in DataLoader(TensorDataset(x), batch_size=4):
    loss = small(model(rows)).square().mean()
    loss.backward()
    optim.step()
print(Block.calls, Block.type)
"""
)


def test_one_rank_computes_again_and_in_bfloat16_as_well(tmp_path):
    run = Run(tmp_path, launch(1), Wishes(layout=Layout.parse("recompute=full,bf16"), self_check=False))
    (rank,) = run.ranks(submitit(1), run.script(COUNTED))
    assert rank.out == "12 torch.bfloat16\n", rank.err
    assert "Linear has no list of like blocks, so recompute and compile leave it as it is" in rank.err
    assert rank.err.count("no list of like blocks") == 1


def test_what_leaves_every_model_as_it_is_is_not_said_to_be_at_work(tmp_path):
    text = COUNTED.replace("nn.Sequential(*(Block() for _ in range(3)))", "Block()")
    run = Run(tmp_path, launch(1), Wishes(layout=Layout.parse("recompute=full,compile")))
    (rank,) = run.ranks(submitit(1), run.script(text))
    assert "Block has no list of like blocks, so recompute and compile leave it as it is" in rank.err
    assert "each block compiled" not in rank.err
    assert "computed again" not in rank.err


@pytest.mark.parametrize("layout", ["recompute=every-2", "pp=2,recompute=full"])
def test_what_some_blocks_do_is_in_the_plan_file(tmp_path, layout):
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse(layout)))
    ranks = run.ranks(submitit(2), run.script(scripts.GPT), str(tmp_path / "weights.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert (kept["plan"]["recompute"], kept["global_batch_rows"]) == (layout.partition("recompute=")[2], 8)
    assert "batch_per_device : 4," in kept["moai"] or "pp" not in layout


@pytest.mark.parametrize("layout", ["fsdp,bf16", "replicate,bf16"])
def test_bfloat16_computes_coarsely_and_keeps_float32_weights(tmp_path, layout):
    lines, weights = plain(tmp_path, scripts.COARSE)
    rank, saved = ended(tmp_path, scripts.COARSE, layout)
    assert NUMBER.sub("", rank.out).splitlines() == [NUMBER.sub("", line) for line in lines]
    mine, wanted = ([float(number) for number in NUMBER.findall(text)] for text in (rank.out, "\n".join(lines)))
    assert mine == pytest.approx(wanted, rel=0.02)
    assert mine != pytest.approx(wanted, rel=1e-5), "nothing was computed in bfloat16"
    for name, value in torch.load(saved).items():
        torch.testing.assert_close(value, weights[name], rtol=0.05, atol=0.01)


def ended(work, text, layout):
    """Rank 0 of two that ran *text*, and the file that it saved."""
    run = Run(work / re.sub(r"\W", "_", layout), launch(2), Wishes(layout=Layout.parse(layout)))
    ranks = run.ranks(submitit(2), run.script(text), str(run.folder / "weights.pt"))
    assert [rank.code for rank in ranks] == [0, 0], "\n".join(rank.err for rank in ranks)
    return ranks[0], run.folder / "weights.pt"


REFUSED = {
    "copy": "copy.deepcopy of Sequential, whose weights are spread over ranks since training began, is not possible",
    "hook": "the script asked a parameter that is spread over ranks for a hook on its gradient",
    "step": "the script asked a parameter that is spread over ranks for a hook on its gradient",
    "address": "the script asked a parameter that is spread over ranks for its address",
    "grad": "call loss.backward() and read parameter.grad",
    "inputs": "gradients of chosen parameters (inputs=..., torch.autograd.grad) would be this rank's part",
    "twice": "create_graph=True needs weights that stay gathered",
    "hooked": "the script asked a parameter that is spread over ranks for a hook on its gradient",
    "sparse": "embed has sparse gradients",
    "clipped": "embed edits its weight in forward (max_norm)",
    "lazy": "0 is a lazy module without weights when training begins",
}


def test_what_weights_in_parts_cannot_give_is_refused_by_name(tmp_path):
    rank, _ = ended(tmp_path, scripts.REFUSALS, "fsdp")
    said = dict(line.split(": ", 1) for line in rank.out.splitlines())
    assert list(said) == list(REFUSED)
    for name, words in REFUSED.items():
        assert words in said[name]
        assert "--layout replicate" in said[name] or name in ("clipped", "lazy")


def llama(layers=3, **words):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=8, num_hidden_layers=layers, **sizes, **words))


def encoder_decoder():
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2))


def bert():
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    return BertModel(BertConfig(vocab_size=8, num_hidden_layers=3, **sizes))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2)


def resnet():
    stages = [nn.Sequential(*(Residual() for _ in range(count))) for count in (2, 3)]
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ModuleDict({f"layer{at}": each for at, each in enumerate(stages)}))


def tied():
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Tanh()) for _ in range(3))
    model.head = nn.Linear(2, 2)
    model.head.weight = model.layers[1][0].weight
    return model


def repeated():
    block = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    return nn.Sequential(block, block, nn.Sequential(nn.Linear(2, 2), nn.Tanh()))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (llama, [[f"model.layers.{at}" for at in range(3)]]),
        (bert, [[f"encoder.layer.{at}" for at in range(3)]]),
        (encoder_decoder, [[f"{part}.block.{at}" for at in range(2)] for part in ("encoder", "decoder")]),
        (resnet, [["1.layer0.0", "1.layer0.1"], ["1.layer1.0", "1.layer1.1", "1.layer1.2"]]),
        (tied, [["layers.0", "layers.2"]]),
        (repeated, [["2"]]),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), []),
        (lambda: nn.LSTM(2, 2), []),
    ],
)
def test_blocks_are_found_by_structure(make, names):
    with torch.device("meta"):
        model = make()
    of = {id(module): name for name, module in model.named_modules()}
    assert [[of[id(block)] for block in each] for each in blocks.find(model)] == names


# A bias of one number, of which some rank has no part, in a penalty over weights.
SCARCE = """import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(0)
X, Y = torch.randn(30, 4), torch.randn(30, 1)
def main():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), batch_size=9)):
        loss = F.mse_loss(model(x), y)
        loss = loss + 1e-3 * sum(p.pow(2).sum() for p in model.parameters())
        (loss / 2).backward()
        if (step + 1) % 2 == 0:
            opt.step()
            opt.zero_grad()
        print(loss.item(), sum(p.sum().item() for p in model.parameters()))
    torch.save([p.detach() for p in model.parameters()], sys.argv[1])
main()
"""


@pytest.mark.parametrize("count", [2, 3])
def test_a_penalty_over_weights_of_which_a_rank_has_no_part(work, count):
    """The ranks talked past each other, and the network stopped the run."""
    same_run(work, SCARCE, *plain(work, SCARCE), count, layout="fsdp")


TAUGHT = (
    HEAD
    + """
model, teacher = (nn.Sequential(nn.Linear(4, wide), nn.ReLU(), nn.Linear(wide, 3)) for wide in (8, 16))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
x = torch.randn(14, 4)
for epoch in range(2):
    for (rows,) in DataLoader(TensorDataset(x), batch_size=6):
        with torch.inference_mode():
            soft = teacher(rows)
        loss = F.cross_entropy(model(rows), soft.argmax(1))
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(loss.item())
    with torch.no_grad():
        print((teacher(x).argmax(1) == model(x).argmax(1)).sum().item())
    print(teacher(x).logsumexp(1).sum().item())
torch.save(model.state_dict(), sys.argv[1])
"""
)


@pytest.mark.parametrize("layout", ["fsdp", "zero2"])
def test_a_teacher_that_is_called_in_inference_mode_first_can_be_called_outside(work, layout):
    same_run(work, TAUGHT, *plain(work, TAUGHT), 2, layout=layout)
