"""Models whose blocks are in pipeline stages: the same losses, norms, weights and files as on one device."""

import json
import subprocess
import sys
import textwrap
from functools import partial
from types import SimpleNamespace

import layout_scripts as scripts
import pytest
import torch
from one_device import assert_same_weights, plain, same_run
from runtime_ranks import Run, ended, launch, submitit
from test_runtime_layouts import older
from test_runtime_resume import TRAIN, assert_one_run, killed_after, start, whole
from torch import nn
from torch.distributed.pipelining import schedules

from lumi_moai.errors import RequestError
from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel.layout.pipeline import elsewhere, passage, schedule, travel
from lumi_moai.runtime.parallel.layout.pipeline.passage import Passage, Span


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("plain"), scripts.GPT)


@pytest.mark.parametrize(("layout", "count"), [("pp=2,micro_batches=3,recompute=every-2", 2), ("pp=2,dp=2", 4)])
def test_a_transformer_trains_alike_in_stages(tmp_path, gpt, layout, count):
    """Tied weights, a number alone, a frozen weight, accumulation, clipping, a last batch of 3 rows, evaluation."""
    lines, weights = gpt
    _, ranks = same_run(tmp_path, scripts.GPT, lines, weights, count, layout=layout)
    pieces = 3 if count == 2 else 2
    assert f"num_stages : 2, num_micro_batches : {pieces}" in ranks[0].err
    assert "self-check of the first step: loss" in ranks[0].err


def test_each_transfer_is_waited_for_where_torch_keeps_the_last_one(monkeypatch):
    # PyTorch 2.7 forgets the others, gloo drops what is forgotten, and both stages waited for ever.
    waited = []
    begun = [SimpleNamespace(wait=partial(waited.append, each)) for each in ("sent", "received")]
    monkeypatch.setattr(torch, "__version__", "2.7.1+rocm6.2.4")
    monkeypatch.setattr(torch.distributed, "batch_isend_irecv", lambda _: begun)
    monkeypatch.setattr(schedules, "_batch_p2p", lambda operations, desc=None: begun[-1])
    schedule.keep_transfers()
    schedules._batch_p2p(["send", "receive"], desc="fwd_send_bwd_recv").wait()
    assert waited == ["sent", "received"]
    assert not schedules._batch_p2p([])


# As PyTorch 2.7 and 2.8 have it, also for a schedule that works with any number of pieces.
COUNTS_PIECES = """
from torch.distributed.pipelining import ScheduleGPipe
def counted(self, stage, pieces, _own=ScheduleGPipe.__init__, **words):
    _own(self, stage, pieces, **words)
    if pieces < stage.num_stages:
        raise ValueError(f"Number of microbatches ({pieces}) must be greater than or equal to the number of stages")
ScheduleGPipe.__init__ = counted
"""


@pytest.mark.parametrize("layout", ["pp=2", "pp=2,micro_batches=1"])
def test_stages_train_alike_with_the_schedules_of_an_older_torch(tmp_path, gpt, layout):
    text = older("2.7.1").replace("import lumi_moai\n", COUNTS_PIECES + "import lumi_moai\n", 1)
    same_run(tmp_path, text, *gpt, 2, layout=layout)


BLOCKS = (
    scripts.DATA.replace("enable_advanced_parallelization()", "enable_advanced_parallelization(**OPTIONS)").replace(
        "import lumi_moai\n",
        "import lumi_moai, os\nOPTIONS = dict(pipeline_parallel=True, num_stages=2, num_micro_batches=2)\n",
    )
    + """
class Block(nn.Module):
    def __init__(self, width=6, p=0.0):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 9), nn.Linear(9, width)
        self.heat, self.drop = nn.Parameter(torch.tensor(0.7)), nn.Dropout(p)
    def forward(self, x, bias=None):
        x = x + self.drop(self.down(torch.tanh(self.up(self.norm(x))))) * self.heat
        return x if bias is None else x + bias
"""
)

# What scripts do with models and weights in stages, and files; each model is a list of blocks of another make.
HABITS = (
    BLOCKS
    + """
def sequential():
    model = nn.Sequential(nn.Linear(6, 6), *[Block() for _ in range(3)], nn.Linear(6, 3)).cuda()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for a, b in data():
        loss = F.mse_loss(model(a), b) + 0.01 * sum(p.pow(2).sum() for p in model.parameters())
        opt.zero_grad(); loss.backward(); opt.step()
        print(f"sequential {loss.item()} {model[1].up.weight.norm().item()} {model[3].up.weight.grad.sum().item()}")
    print(model[3].heat.item(), sum(p.numel() for p in model.parameters()), model[1].up.weight[0], model[3].down.bias)
    with torch.no_grad():
        model[2].up.weight[0] = 1.0
        model[2].up.bias.copy_(torch.arange(9.0))
    for a, b in data():
        loss = F.mse_loss(model(a), b)
        opt.zero_grad(); loss.backward(); opt.step()
        print(f"sequential again {loss.item()}")
    keep("sequential", model)

class Skip(nn.Module):
    # Adds what it embedded to every block, with a learned bias that the blocks share.
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.shared = nn.Parameter(torch.linspace(-1, 1, 6))
        self.layers = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(6, 11, bias=False)
    def forward(self, tokens, targets=None):
        first = x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x + 0.1 * first, bias=self.shared)
        scores = self.head(x)
        if targets is None:
            return {"scores": scores, "mean": first.mean((1, 2))}
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        return loss, loss + 0.001 * scores.square().mean(), scores

def skip():
    model = Skip().cuda()
    opt = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)
    chance = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 11, (14, 5), generator=chance)
    targets = torch.where(torch.rand(14, 5, generator=chance) < 0.3, -100, tokens.roll(-1, 1))
    for step, (a, b) in enumerate(DataLoader(TensorDataset(tokens, targets), batch_size=5)):
        own, total, scores = model(a[:, : 5 - step], b[:, : 5 - step])
        (total if step else own).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step(); opt.zero_grad()
        print(f"skip {own.item()} {total.item()} {norm.item()} {tuple(scores.shape)} {torch.rand(()).item()}")
    for (a,) in DataLoader(TensorDataset(tokens), batch_size=5):
        out = model(a)
        loss = out["scores"].square().mean() + out["mean"].mean()
        loss.backward(); opt.step(); opt.zero_grad()
        print(f"dictionary {loss.item()}")
    print(sum(v.abs().sum().item() for s in opt.state.values() for k, v in s.items() if k != "step"))
    keep("skip", model)
    folder = os.path.dirname(sys.argv[1])
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, folder + "/state.pt")
    torch.save(model, folder + "/model.pt")
    state = torch.load(folder + "/state.pt", weights_only=False)
    print(Skip().load_state_dict(state["model"]), model.load_state_dict(state["model"]))
    opt.load_state_dict(state["opt"])
    model.eval()
    with torch.no_grad():
        print(f"held out {model(tokens[:7])['scores'].sum().item()}")
    model.train()
    for a, b in DataLoader(TensorDataset(tokens, targets), batch_size=5):
        loss = model(a, b)[0]
        loss.backward(); opt.step(); opt.zero_grad()
        print(f"loaded {loss.item()}")

def asked():
    # A gradient goes through the model to what it is given; LBFGS asks for the loss again and again.
    model, taught = nn.Sequential(*[Block() for _ in range(3)]).cuda(), nn.Parameter(torch.ones(1, 6))
    opt = torch.optim.LBFGS([taught, *model.parameters()], lr=0.1, max_iter=2)
    for a, b in DataLoader(TensorDataset(x, y), batch_size=19):
        def closure():
            opt.zero_grad()
            loss = F.mse_loss(model(a * taught)[:, :3], b)
            loss.backward()
            return loss
        for _ in range(2):
            print(f"asked {opt.step(closure).item()} {taught.grad.norm().item()}")
    keep("asked", model)

def dropped():
    # The head has no bias, so loss and gradient of a sum belong together only if both passes dropped the same.
    blocks = nn.Sequential(*[Block(p=0.5) for _ in range(4)])
    model = nn.Sequential(nn.Dropout(0.2), blocks, nn.Linear(6, 3, bias=False)).cuda()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    for a, b in data():
        loss = (model(a) * b).sum(1).mean()
        opt.zero_grad(); loss.backward()
        head = model[2].weight
        print("dropped", abs(loss.item() - (head * head.grad).sum().item()) < 1e-5)
        opt.step()
    with torch.no_grad():
        model(x)
        model.eval()
        before = torch.get_rng_state()
        model(x)
        print("evaluation draws", not torch.equal(before, torch.get_rng_state()))

def gan():
    # A gradient goes through one model in stages into another; a frozen one is whole; an average of weights.
    def net(last): return nn.Sequential(nn.Linear(6, 6), *[Block() for _ in range(3)], nn.Linear(6, last)).cuda()
    G, D, teacher = net(6), net(1), net(1).eval()
    for p in teacher.parameters(): p.requires_grad_(False)
    og = torch.optim.Adam(G.parameters(), lr=0.01, eps=1e-4); od = torch.optim.SGD(D.parameters(), lr=0.1)
    ema = {n: p.detach().clone() for n, p in G.named_parameters()}
    for real, other in data():
        fake = G(torch.cat([other, other], 1))
        for p in D.parameters(): p.requires_grad_(True)
        ld = F.softplus(-D(real)).mean() + F.softplus(D(fake.detach())).mean()
        od.zero_grad(); ld.backward(); od.step()
        for p in D.parameters(): p.requires_grad_(False)
        penalty = 0.001 * sum(p.pow(2).sum() for p in G.parameters())
        lg = F.softplus(-D(fake)).mean() + 0.01 * teacher(fake).square().mean() + penalty
        og.zero_grad(); lg.backward(); og.step()
        with torch.no_grad():
            for n, p in G.named_parameters(): ema[n].mul_(0.9).add_(p, alpha=0.1)
        print(f"gan {ld.item()} {lg.item()} {sum(v.norm().item() for v in ema.values())}")
    keep("g", G); keep("d", D)
gan(); sequential(); skip(); asked(); dropped()
torch.save(saved, sys.argv[1])
"""
)

READ_FILES = """
import sys, torch
state = torch.load("state.pt")
print(sorted((name, tuple(value.shape)) for name, value in state["model"].items()))
print([type(value).__name__ for value in state["model"].values()], state["opt"]["param_groups"])
print(sum(value.double().sum().item() for each in state["opt"]["state"].values() for value in each.values()))
"""


def test_what_scripts_do_with_models_in_stages_is_as_on_one_device(tmp_path):
    lines, weights = plain(tmp_path, HABITS)
    run, ranks = same_run(tmp_path, HABITS, lines, weights, 2, layout="")
    assert "num_stages : 2, num_micro_batches : 2" in ranks[0].err
    read = [
        subprocess.run([sys.executable, "-I", "-c", READ_FILES], cwd=folder, capture_output=True, text=True).stdout
        for folder in (tmp_path, run.folder)
    ]
    assert read[0].splitlines()[:2] == read[1].splitlines()[:2]
    assert float(read[0].splitlines()[2]) == pytest.approx(float(read[1].splitlines()[2]), rel=1e-5)
    kept = (run.folder / "model.pt").read_bytes()
    assert b"lumi_moai" not in kept
    assert b"__main__" in kept


# A tied Llama with padded rows; GPT-2, which computes activations again itself; T5, whose decoder stays whole.
FAMILIES = (
    scripts.HEAD
    + """
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import T5Config, T5ForConditionalGeneration
tokens = torch.randint(1, 30, (11, 6), generator=torch.Generator().manual_seed(1))
masks = torch.arange(6) < torch.tensor([6, 4, 5, 6, 3, 6, 5, 6, 6, 4, 2])[:, None]
def train(name, model):
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)
    model.train()
    for a, mask in DataLoader(TensorDataset(tokens, masks), batch_size=4, shuffle=True):
        out = model(input_ids=a.cuda(), attention_mask=mask.long(), labels=a.where(mask, -100))
        out.loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step(); opt.zero_grad()
        print(f"{name} {out.loss.item()} {norm.item()} {out.logits.shape}")
    model.eval()
    if name != "t5":
        print(name, model.generate(tokens[:2], max_new_tokens=4, do_sample=False, pad_token_id=0, use_cache=False))
    model.save_pretrained(sys.argv[1] + name)
    print(type(model).__name__, sum(p.numel() for p in model.parameters()))
    keep(name, model)
    again = type(model).from_pretrained(sys.argv[1] + name)
    print(name, all(torch.equal(p, torch.tensor(q.tolist())) for p, q in zip(again.parameters(), model.parameters())))
llama = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, tie_word_embeddings=True)
train("llama", LlamaForCausalLM(llama).cuda())
gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0,
                                  embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0))
gpt2.gradient_checkpointing_enable()
train("gpt2", gpt2.cuda())
t5 = T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, dropout_rate=0,
              decoder_start_token_id=0)
train("t5", T5ForConditionalGeneration(t5).cuda())
torch.save(saved, sys.argv[1])
"""
)


def test_models_of_hugging_face_train_alike_in_stages(tmp_path):
    lines, weights = plain(tmp_path, FAMILIES)
    same_run(tmp_path, FAMILIES, lines, weights, 2, layout="pp=2")


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.linear(x)


class Around(nn.Module):
    """Four layers, of which the second stage of two has the last two; *between* is called with what they give."""

    def __init__(self, between):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.between = between

    def forward(self, x):
        given = [x]
        for number, layer in enumerate(self.layers):
            given.append(layer(self.between(number, given)))
        return given[-1], self.between(4, given)


def second_stage(between):
    """What the second stage of *between* returns, given ones; and what it should be."""
    torch.manual_seed(0)
    model = Around(between)
    alone = list(model.layers)[2:]
    for number, layer in enumerate(model.layers):
        passage.mark(layer, number)
    ones = torch.ones(2, 3)
    received = travel.Received(form=travel.of(ones), value=ones)
    here = Passage(Span(stage=1, stages=2, first=2, end=4, blocks=4), received, None)
    with here.under_way():
        result = model(torch.zeros(2, 3))
        last = ones
        for layer in alone:
            last = Layer.forward(layer, last)
        return result, last


def test_code_between_blocks_runs_on_every_stage():
    """What it computes from blocks of an earlier stage is known by its shape, and does no harm while nobody needs it."""

    def between(number, given):
        assert given[-1].shape == (2, 3)
        assert given[-1].device == torch.device("cpu")
        doubled = 2 * given[-1] + torch.zeros(given[-1].shape, device=given[-1].device)
        return doubled if number < 2 else given[-1]

    (result, _), expected = second_stage(between)
    torch.testing.assert_close(result, expected)


def kept(number, given):
    given[0][0] = given[-1][0]
    return given[-1]


STAGED_ELSEWHERE = {
    "block 3 uses a result of a block before the last one": lambda number, given: (
        given[1] if number == 3 else given[-1]
    ),
    "reads numbers (item) of a result": lambda number, given: given[-1] * given[-1].mean().item(),
    "reads numbers (bool) of a result": lambda number, given: given[-1] if given[-1].sum() else given[0],
    "keeps a result of a block in another tensor (setitem)": kept,
}


@pytest.mark.parametrize("words", STAGED_ELSEWHERE)
def test_what_needs_numbers_of_another_stage_is_refused(words):
    with pytest.raises(RequestError, match=r"--layout fsdp or tp=2 in the place of pp$") as caught:
        second_stage(STAGED_ELSEWHERE[words])
    assert words in str(caught.value)


def test_results_of_another_stage_that_are_returned_are_known():
    (_, states), _ = second_stage(lambda number, given: given[-1] if number < 4 else given)
    assert elsewhere.holds(states)


def test_blocks_are_called_once_each_in_their_order():
    layers = [Layer() for _ in range(4)]
    for number, layer in enumerate(layers):
        passage.mark(layer, number)
    span = Span(stage=0, stages=2, first=0, end=2, blocks=4)

    def walk(*numbers):
        x = torch.ones(2, 3)
        with Passage(span, None, None).under_way():
            for number in numbers:
                x = layers[number](x)

    walk(0, 1)
    for numbers, words in {
        (0, 2): "calls block 2 where block 1 follows",
        (0, 0): "calls block 0 where block 1 follows",
        (0,): "its forward ends ahead of block 1 of 4",
    }.items():
        with pytest.raises(RequestError) as caught:
            walk(*numbers)
        assert words in str(caught.value)
    with pytest.raises(RequestError, match="the script calls a block by itself"):
        layers[0](torch.ones(2, 3))


def test_what_a_block_returns_travels_as_one_row():
    value = {"hidden": torch.randn(2, 3), "more": (torch.randn(4).bfloat16(), None, 7)}
    form = travel.of(value)
    row = travel.row(value, form, 12)
    assert row.shape == (12,)
    assert row.dtype == torch.float32
    back = form.received(row)
    assert torch.equal(back["hidden"], value["hidden"])
    assert torch.equal(back["more"][0], value["more"][0])
    assert back["more"][1:] == (None, 7)
    assert form.elsewhere()["hidden"].shape == (2, 3)
    for wrong, words in {"a string": "returns no tensor", object(): "returns a object"}.items():
        with pytest.raises(RequestError, match=words):
            travel.of(wrong)
    with pytest.raises(RequestError, match=r"a block returns a tensor of torch.int64"):
        travel.of(torch.arange(3))
    with pytest.raises(RequestError, match="something else from piece to piece"):
        travel.row(value["hidden"], form, 12)


# Each sentence that refuses a model or a habit on all ranks alike; the script goes on with another model.
REFUSALS = (
    BLOCKS.replace("num_micro_batches=2", "num_micro_batches=1")
    + """
import gc
from lumi_moai.errors import RequestError
def attempt(name, action):
    try:
        action()
    except RequestError as error:
        print(f"{name}: {error}")
    else:
        print(f"{name}: went through")
    gc.collect()
def begin(model, step=lambda loss: loss.backward(), **words):
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for a, b in data():
        step(F.mse_loss(model(a, **words)[:, :3], b))
        break
    return model
def blocks(count=3, *more):
    return nn.Sequential(*more, *[Block() for _ in range(count)])
class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.register = nn.ModuleList(Block() for _ in range(2)), None
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, x, cache=None):
        self.seen += 1
        for layer in self.layers:
            x = layer(x)
        return x
hooked = blocks()
hooked[0].register_forward_hook(lambda module, given, result: None)
model = begin(blocks())
attempt("few", lambda: begin(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))))
attempt("norm", lambda: begin(blocks(3, nn.BatchNorm1d(6))))
attempt("copy", lambda: copy.deepcopy(model))
attempt("part", lambda: model[0](x))
attempt("cache", lambda: begin(Kept(), cache=gc))
attempt("hook", lambda: begin(hooked))
attempt("grad", lambda: begin(blocks(), lambda loss: torch.autograd.grad(loss, list(model.parameters()))))
attempt("twice", lambda: begin(blocks(), lambda loss: loss.backward(create_graph=True)))
"""
)
REFUSED = {
    "few": "Sequential has no blocks that could be 2 pipeline stages",
    "norm": "0 is a BatchNorm1d, which needs all rows at once",
    "copy": "copy.deepcopy of Block, a block of a model that is in pipeline stages",
    "part": "the script calls a block by itself; call the whole model",
    "cache": "Kept gets a module, of which each stage would change its own",
    "hook": "0 has a hook on its forward, which would see pieces without a gradient",
    "grad": "gradients of chosen parameters (inputs=..., torch.autograd.grad)",
    "twice": "create_graph=True needs weights that stay",
}


def test_what_stages_cannot_give_is_refused_by_name(tmp_path):
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse("pp=2"), self_check=False))
    ranks = run.ranks(submitit(2), run.script(REFUSALS))
    assert [rank.code for rank in ranks] == [0, 0], "\n".join(rank.err for rank in ranks)
    said = dict(line.split(": ", 1) for line in ranks[0].out.splitlines())
    assert list(said) == list(REFUSED)
    for name, words in REFUSED.items():
        assert words in said[name]


# A model that counts its calls in a buffer: found on the stage that computes it, and both ranks stop with its sentence.
COUNTING = (
    BLOCKS
    + """
class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, x):
        self.seen += 1
        for layer in self.layers:
            x = layer(x)
        return x
model = Counting().cuda()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
for a, b in data():
    F.mse_loss(model(a)[:, :3], b).backward()
    opt.step()
    print("trained")
"""
)


def test_a_refusal_of_one_stage_ends_all(tmp_path):
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse("pp=2"), self_check=False))
    ranks = run.ranks(submitit(2), run.script(COUNTING))
    assert all(rank.code for rank in ranks)
    assert ranks[0].out == ""
    assert "the forward of Counting changes the buffer seen with each batch" in "".join(rank.err for rank in ranks)


# What a rank holds of the weights, gradients and optimizer states.
HELD = (
    BLOCKS
    + """
import gc
from lumi_moai.runtime import group
model = nn.Sequential(nn.Embedding(200, 64), *[Block(64) for _ in range(8)], nn.Linear(64, 200)).cuda()
opt = torch.optim.AdamW(model.parameters(), lr=0.01)
for (rows,) in DataLoader(TensorDataset(torch.arange(24).view(8, 3)), batch_size=4):
    F.cross_entropy(model(rows).flatten(0, 1), rows.flatten()).backward()
    opt.step()
gc.collect()
kinds = (torch.Tensor, nn.Parameter)
unique = {}
for each in gc.get_objects():
    if isinstance(each, torch.Tensor) and type(each) in kinds and each.device.type == "cpu" and each.is_floating_point():
        unique[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
whole = sum(p.numel() * 4 for p in model.parameters())
found = [None, None]
torch.distributed.all_gather_object(found, sum(unique.values()))
print([each / whole / 4 for each in found])
"""
)


def test_a_stage_holds_its_share(tmp_path):
    """Of weights, gradients, both moments of Adam and the bucket: a half of the blocks, and the embedding or the head.

    The weights outside of the blocks are 70 % here, so a stage that had both would be at 1.06.
    """
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse("pp=2"), self_check=False))
    ranks = run.ranks(submitit(2), run.script(HELD))
    assert [rank.code for rank in ranks] == [0, 0], "\n".join(rank.err for rank in ranks)
    for part in json.loads(ranks[0].out):
        assert 0.5 < part < 0.75, ranks[0].out


def test_a_killed_run_goes_on_in_stages(tmp_path):
    model = "nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))"
    block = "nn.Sequential(nn.Linear(8, 8), nn.ReLU())"
    text = TRAIN.replace(model, f"nn.Sequential(*[{block} for _ in range(2)], nn.Linear(8, 2))")
    text = text.replace("epoch in range(5)", "epoch in range(3)")
    lines, weights = plain(tmp_path, textwrap.dedent(text.replace("PAUSE", "0")))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, text, 2, layout="pp=2"), 4)
    last = whole(ended(start(run, text, 2, job="78", layout="pp=2")))
    assert "resumed at step" in last.err
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


# Nothing of the first stage is trained, so no gradient goes back to it; what it gives must still reach the second.
FROZEN = (
    scripts.DATA
    + """
model = nn.Sequential(nn.Linear(6, 8), *(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)), nn.Linear(8, 3)).cuda()
for part in model[:3]:
    part.requires_grad_(False)
optim = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
for a, b in data():
    loss = F.mse_loss(model(a), b)
    optim.zero_grad(); loss.backward(); optim.step()
    print(f"frozen {loss.item()} {model[-1].weight.grad.norm().item()}")
keep("frozen", model)
torch.save(saved, sys.argv[1])
"""
)


def test_a_first_stage_that_is_frozen_hands_its_results_on(tmp_path):
    lines, weights = plain(tmp_path, FROZEN)
    same_run(tmp_path, FROZEN, lines, weights, 2, layout="pp=2")
