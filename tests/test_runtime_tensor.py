"""Models whose matrix products are spread over the ranks of a tp group: the same losses, norms and weights."""

import pytest
import torch
from one_device import NUMBER, plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

HEAD = """
import math, sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(7)
tokens = torch.randint(0, 13, (19, 6), generator=torch.Generator().manual_seed(3))
saved = []
"""

# 19 rows in batches of 8: the last batch has 3 rows. Norms, clipping, AdamW, a scheduler, evaluation in between.
TAIL = """
def train(name, model, loss_of, steps=2):
    model = model.to("cuda")
    optim = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)  # the bias of keys has only rounding
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 12)
    for epoch in range(2):
        model.train()
        for (rows,) in DataLoader(TensorDataset(tokens), batch_size=8, shuffle=True):
            loss = loss_of(model, rows.to("cuda"))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optim.step()
            scheduler.step()
            optim.zero_grad()
            print(f"{name} loss {loss.item()} norm {norm.item()}")
        model.eval()
        with torch.no_grad():
            total = sum(loss_of(model, rows.to("cuda")).item() * len(rows) for (rows,) in
                        DataLoader(TensorDataset(tokens), batch_size=5))
        print(f"{name} held out {total}")
    return [torch.tensor(p.detach().tolist()) for p in model.parameters()]
"""

GPT = """
class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.n_head, self.n_embd = heads, width
        self.resid_dropout = nn.Dropout(0.0)
    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_dropout(self.c_proj(y))
class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc, self.gelu, self.c_proj = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))
class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), MLP(width)
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))
class GPT(nn.Module):
    def __init__(self, vocabulary=13, width=16, heads=2, depth=2):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(6, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
    def forward(self, x):
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        for block in self.h:
            h = block(h)
        return self.lm_head(self.ln_f(h))
def next_token(model, rows):
    return F.cross_entropy(model(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
saved += train("gpt", GPT(), next_token)
"""

# Grouped queries, rotary embedding, a norm of queries per head, a gate; attention by hand with a mask; one frozen layer.
LLAMA = """
class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
    def forward(self, x):
        return self.weight * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x)
def turn(x, cos, sin):
    left, right = x[..., ::2], x[..., 1::2]
    return torch.stack((left * cos - right * sin, left * sin + right * cos), dim=-1).flatten(3)
class Attention(nn.Module):
    def __init__(self, width, heads, groups):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.wq, self.wk = nn.Linear(width, width, bias=False), nn.Linear(width, groups * self.size, bias=False)
        self.wv, self.wo = nn.Linear(width, groups * self.size, bias=False), nn.Linear(width, width, bias=False)
        self.q_norm = RMSNorm(self.size)
    def forward(self, x, cos, sin, mask):
        B, T, _ = x.shape
        q = turn(self.q_norm(self.wq(x).view(B, T, self.heads, self.size)), cos, sin).transpose(1, 2)
        k = turn(self.wk(x).view(B, T, self.groups, self.size), cos, sin)
        v = self.wv(x).view(B, T, self.groups, self.size)
        repeat = self.heads // self.groups
        k, v = (t[:, :, :, None, :].expand(B, T, self.groups, repeat, self.size).reshape(B, T, -1, self.size)
                .transpose(1, 2) for t in (k, v))
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.size)
        scores = F.softmax((scores + mask).float(), dim=-1).type_as(q)
        return self.wo(torch.matmul(scores, v).transpose(1, 2).contiguous().view(B, T, -1))
class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, 24, bias=False), nn.Linear(24, width, bias=False)
        self.w3 = nn.Linear(width, 24, bias=False)
    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention, self.feed_forward = Attention(width, 4, 2), FeedForward(width)
        self.attention_norm, self.ffn_norm = RMSNorm(width), RMSNorm(width)
    def forward(self, x, *rest):
        x = x + self.attention(self.attention_norm(x), *rest)
        return x + self.feed_forward(self.ffn_norm(x))
class Llama(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.tok_embeddings = nn.Embedding(13, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(2))
        self.norm, self.output = RMSNorm(width), nn.Linear(width, 13, bias=False)
        self.layers[0].feed_forward.w3.weight.requires_grad = False
        angles = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1]))[:, None]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
    def forward(self, x):
        h = self.tok_embeddings(x)
        mask = torch.full((6, 6), float("-inf"), device=h.device).triu(1)
        for layer in self.layers:
            h = layer(h, self.cos, self.sin, mask)
        return self.output(self.norm(h))
def next_token(model, rows):
    return F.cross_entropy(model(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
saved += train("llama", Llama(), next_token)
"""


HUGGING_FACE = """
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
def own_loss(model, rows):
    return model(input_ids=rows, labels=rows).loss
llama = LlamaConfig(vocab_size=13, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, max_position_embeddings=8, attn_implementation="sdpa")
saved += train("hf llama", LlamaForCausalLM(llama), own_loss)
gpt2 = GPT2Config(vocab_size=13, n_positions=8, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
                  attn_pdrop=0.0, attn_implementation="eager")
saved += train("gpt2", GPT2LMHeadModel(gpt2), own_loss)
"""
# Dropout everywhere: tp ranks that have the same rows must draw the same, and rank 0 draws what one device would.
FAMILIES = """
import copy
import transformers as hf
small = {"vocab_size": 13, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 8}
def own_loss(model, rows):
    return model(input_ids=rows, labels=rows).loss
sdpa, eager = {"attn_implementation": "sdpa"}, {"attn_implementation": "eager"}
MODELS = {
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**small, num_key_value_heads=2, **eager)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**small, num_key_value_heads=1, head_dim=4, **sdpa)),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**small, attention_dropout=0.1, hidden_dropout=0.1, **eager)),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**{**small, "ffn_dim": 24, "word_embed_proj_dim": 16}, dropout=0.1)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**small, **eager)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=13, d_model=16, d_kv=4, d_ff=24, num_layers=2,
                                                            num_heads=4, decoder_start_token_id=0)),
}
for name, make in MODELS.items():
    saved += train(name, make(), own_loss)
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(13, 16), nn.Linear(16, 13)
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
    def forward(self, rows):
        return self.head(self.encoder(self.embed(rows), src_key_padding_mask=rows == 0))
def rebuild(model, rows):
    return F.cross_entropy(model(rows).flatten(0, 1), rows.flatten())
model = Encoder()
saved += train("encoder", model, rebuild)
twin = copy.deepcopy(model)
for mine, theirs in zip(twin.parameters(), model.parameters()):
    mine.data.mul_(0.5).add_(theirs.data, alpha=0.5)
twin.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})
print(f"twin {rebuild(twin, tokens).item()} {rebuild(model, tokens).item()}")
print([(name, tuple(value.shape)) for name, value in model.state_dict().items()], type(model.encoder.layers[0].linear1))
"""
# A pair of layers with things between that know nothing of parts: a sum over them, sorting, functions of the script's own
# with a backward, edits, layers that take the whole.
BETWEEN = """
class Cumulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.softmax(-1).cumsum(-1)
    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(-1).cumsum(-1)
WAYS = {
    "norm": lambda x: F.layer_norm(x, x.shape[-1:]) * x.std(-1, keepdim=True) + F.normalize(x, dim=-1),
    "order": lambda x: x.sort(-1).values.roll(1, -1) * torch.linspace(0, 1, x.size(-1)) + x[..., :1],
    "own": lambda x: Cumulated.apply(x),
    "halves": lambda x: torch.cat([F.silu(a) * b for a, b in [x.chunk(2, dim=-1), x.chunk(2, dim=-1)]], dim=-1),
    "shapes": lambda x: x.view(x.shape[0], x.shape[1], 3, 4).transpose(-1, -2).reshape(x.shape).unsqueeze(0)[0],
    "heads": lambda x: (F.softmax(x.unflatten(-1, (4, 3)), dim=-1) + 1).mul_(2).flatten(2) + x.mean((0, 1)),
    "einsum": lambda x: torch.einsum("bti,btj->bij", x, x).sum(1)[:, None] + x.masked_fill(x > 0.5, 0.0),
    "stack": lambda x: torch.stack([x, x.relu()], dim=1)[:, 1] * F.dropout(x, 0.3) + F.dropout(x.clone(), 0.2, True, True),
}
def halve(x):
    if not x.requires_grad:
        return x.sin()
    x.register_hook(lambda gradient: gradient / 2)
    x.register_hook(lambda gradient: gradient - gradient.mean(-1, keepdim=True))
    return x.sin()
WAYS["hooks"] = halve
class Pair(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.fc1, self.between, self.fc2 = nn.Linear(16, 12), between, nn.Linear(12, 16)
        self.scale = nn.Parameter(torch.ones(12))
    def forward(self, x):
        return x + self.fc2(self.between(self.fc1(x) * self.scale))
class Stack(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.embed, self.head = nn.Embedding(13, 16), nn.Linear(16, 13)
        self.blocks = nn.Sequential(Pair(between), Pair(between))
    def forward(self, rows):
        return self.head(self.blocks(self.embed(rows)))
for name, between in WAYS.items():
    saved += train(name, Stack(between), lambda model, rows: F.cross_entropy(model(rows).flatten(0, 1), rows.flatten()))
"""
SAVE = """
torch.save(saved, sys.argv[1])
"""
EVERY = HEAD + TAIL + GPT + LLAMA + HUGGING_FACE + SAVE


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """What the script of four transformers prints and saves on one device."""
    return plain(tmp_path_factory.mktemp("every"), EVERY)


@pytest.mark.parametrize(("layout", "count"), [("tp=2", 2), ("tp=2,fsdp", 4), ("tp=2,replicate,recompute=full", 4)])
def test_transformers_are_spread_with_the_one_device_result(tmp_path, every, layout, count):
    same_run(tmp_path, EVERY, *every, count, layout=layout)


def test_bfloat16_keeps_near_the_one_device_result(tmp_path, every):
    """Sums over 16 to 64 products with 8 bits each: 0.5 % of a printed number, where float32 has 0.001 %."""
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse("tp=2,bf16")))
    ranks = run.ranks(submitit(2), run.script(EVERY), str(tmp_path / "weights.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    lines, _ = every
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        assert NUMBER.sub("", line) == NUMBER.sub("", expected)
        wanted = [float(number) for number in NUMBER.findall(expected)]
        assert [float(number) for number in NUMBER.findall(line)] == pytest.approx(wanted, rel=5e-3)
    assert {each.dtype for each in torch.load(tmp_path / "weights.pt")} == {torch.float32}


def test_families_with_dropout_are_spread_with_the_one_device_result(tmp_path):
    text = HEAD + TAIL + FAMILIES + BETWEEN + SAVE
    same_run(tmp_path, text, *plain(tmp_path, text), 2, layout="tp=2")


# A scaler whose one step is left out, for a number that is infinite in one rank's part; gradients of two batches; a file
# read back; the files of Hugging Face.
SCALED = """
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
def own_loss(model, rows):
    return model(input_ids=rows, labels=rows).loss
model = LlamaForCausalLM(LlamaConfig(vocab_size=13, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                     num_attention_heads=4, max_position_embeddings=8)).to("cuda")
optim = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
for step, (rows,) in enumerate(DataLoader(TensorDataset(tokens), batch_size=3, shuffle=True), start=1):
    loss = own_loss(model, rows.to("cuda"))
    scaler.scale(loss / 2).backward()
    if step == 4:
        model.model.layers[0].mlp.up_proj.weight.grad[0, 0] = float("inf")
    if step % 2 == 0:
        scaler.unscale_(optim)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5) if step != 4 else torch.zeros(())
        scaler.step(optim)
        scaler.update()
        optim.zero_grad()
        print(f"loss {loss.item()} norm {norm.item()} scale {scaler.get_scale()}")
torch.save({"model": model.state_dict(), "optim": optim.state_dict()}, "kept.pt")
kept = torch.load("kept.pt")
with torch.no_grad():
    for parameter in model.parameters():
        parameter.mul_(0.5)
model.load_state_dict(kept["model"])
optim.load_state_dict(kept["optim"])
for (rows,) in DataLoader(TensorDataset(tokens), batch_size=8):
    loss = own_loss(model, rows.to("cuda"))
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(f"read back {loss.item()}")
model.save_pretrained("pretrained")
again = LlamaForCausalLM.from_pretrained("pretrained")
stored = load_file("pretrained/model.safetensors")
print("pretrained", type(again).__name__, *{type(each).__name__ for each in stored.values()})
saved = [torch.tensor(p.detach().tolist()) for p in again.parameters()]
"""


@pytest.mark.parametrize(("layout", "count"), [("tp=2,micro_batches=2", 2), ("tp=2,fsdp,offload,recompute=full", 4)])
def test_scaled_gradients_and_files_of_spread_layers(tmp_path, layout, count):
    """Checkpoints are written all the time: a model that was called meanwhile went past the runtime, and ranks hung."""
    text = HEAD + SCALED + SAVE
    same_run(tmp_path, text, *plain(tmp_path, text), count, layout=layout, checkpoint=0.05)


REFUSED = {
    "Sequential has no layers that tp=2 can spread": (
        "tp=2",
        "nn.Sequential(nn.Embedding(13, 8), nn.LSTM(8, 13))",
        "lambda model, rows: model(rows)[0].mean()",
    ),
    "compile does not go together with tp yet": (
        "tp=2,compile",
        "nn.Sequential(nn.Embedding(13, 8), nn.Linear(8, 8))",
        "lambda model, rows: model(rows).mean()",
    ),
    "edits a tensor in place (__setitem__) that is spread over tp=2 ranks": (
        "tp=2",
        "nn.ModuleDict({'embed': nn.Embedding(13, 8), 'fc1': nn.Linear(8, 8)})",
        "edit",
    ),
    "asks a tensor for its data_ptr that is spread over tp=2 ranks": (
        "tp=2",
        "nn.ModuleDict({'embed': nn.Embedding(13, 8), 'fc1': nn.Linear(8, 8)})",
        "lambda model, rows: model['fc1'](model['embed'](rows)).data_ptr()",
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_spread_is_refused_by_name(tmp_path, words):
    layout, model, loss_of = REFUSED[words]
    edit = """
def edit(model, rows):
    x = model["fc1"](model["embed"](rows))
    x[..., 0] = 1
    return x.mean()
"""
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse(layout), self_check=False))
    text = HEAD + TAIL + edit + f"train('refused', {model}, {loss_of})"
    ranks = run.ranks(submitit(2), run.script(text))
    assert ranks[0].code != 0
    assert words in "".join(rank.err for rank in ranks)


# How often parts are put together, in forward and backward, counted on this rank; and what it holds of the weights.
COUNTED = """
from lumi_moai.runtime.parallel.layout.tensor import moves
joins, own = [], moves._join
moves._join = lambda mine, axis: joins.append(tuple(mine.shape)) or own(mine, axis)
def count(name, model, loss_of):
    model = model.to("cuda")
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for (rows,) in DataLoader(TensorDataset(tokens), batch_size=19):
        joins.clear()
        loss_of(model, rows).backward()
    held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters())
    print(f"{name} {len(joins)} joins, {held} of {sum(p.numel() for p in model.parameters())} numbers")
saved = count("by hand", Llama(), next_token)
count("llama", LlamaForCausalLM(llama), own_loss)
count("gpt2", GPT2LMHeadModel(gpt2), own_loss)
"""


def test_what_is_known_stays_in_parts(tmp_path):
    """A pair of layers around what works on parts is never put together; a fused qkv is, and its parts are."""
    families = (LLAMA + HUGGING_FACE).replace("saved += ", "# ")
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse("tp=2"), self_check=False))
    ranks = run.ranks(submitit(2), run.script(HEAD + families + COUNTED))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert ranks[0].out.splitlines() == [
        "by hand 0 joins, 2424 of 4344 numbers",
        "llama 0 joins, 2416 of 4336 numbers",
        "gpt2 0 joins, 3744 of 6928 numbers",
    ]
