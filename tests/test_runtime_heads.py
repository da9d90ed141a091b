"""Attention whose queries, keys and values come out of one layer, over a tp group: each rank computes its own heads."""

import pytest
import torch
from hypothesis import given, strategies
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
from test_runtime_tensor import HEAD, SAVE, TAIL

from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel import draws
from lumi_moai.runtime.parallel.layout.tensor import exchange, moves, scores

STACK = """
class Stack(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.embed, self.head = nn.Embedding(13, 16), nn.Linear(16, 13)
        self.blocks = nn.ModuleList(make() for _ in range(2))
    def forward(self, rows):
        x = self.embed(rows) + torch.linspace(0, 1, 6)[:, None]
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)
def rebuild(model, rows):
    return F.cross_entropy(model(rows).flatten(0, 1), rows.flatten())
"""
# How known families take queries, keys and values from one layer: 4 heads of 4 numbers, or 3; keys and values in 2 groups.
WAYS = """
def heads(x, size=4):
    return x.reshape(*x.shape[:2], -1, size).permute(0, 2, 1, 3)
def by_hand(q, k, v):
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    scores = scores.masked_fill(torch.ones(6, 6).tril()[None, None] == 0, float("-inf"))
    return F.dropout(F.softmax(scores, dim=-1), 0.2) @ v
def sdpa(q, k, v, **words):
    return F.scaled_dot_product_attention(q, k, v, **words)
def grouped(q, k, v):
    return sdpa(q, k, v, dropout_p=0.1, is_causal=True, enable_gqa=True)
WAYS = {
    "nanogpt": (48, lambda y: [heads(t) for t in y.split(16, dim=2)], lambda *qkv: sdpa(*qkv, is_causal=True)),
    "mingpt": (48, lambda y: [t.view(*t.shape[:2], 4, t.size(2) // 4).transpose(1, 2) for t in y.split(16, dim=2)], by_hand),
    "lucidrains": (48, lambda y: [*map(heads, y.chunk(3, dim=-1))], sdpa),
    "timm": (48, lambda y: y.reshape(*y.shape[:2], 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0), sdpa),
    "stacked": (48, lambda y: [y.view(*y.shape[:2], 3, 4, 4)[:, :, i].transpose(1, 2) for i in range(3)], sdpa),
    "phi3": (32, lambda y: [heads(y[..., :16]), heads(y[..., 16:24]), heads(y[..., 24:])], grouped),
    "qwen": (32, lambda y: [heads(t) for t in y.split([16, 8, 8], dim=-1)], grouped),
    "neox": (48, lambda y: y.view(*y.shape[:2], 4, 12).transpose(1, 2).chunk(3, dim=-1), sdpa),
    "narrow": (48, lambda y: [heads(torch.narrow(y, -1, i * 16, 16)) for i in range(3)], sdpa),
    "shared keys": (32, lambda y: [heads(y[..., :16]), *heads(y[..., 16:]).view(-1, 2, 2, 6, 4).unbind(1)], grouped),
    "pairs": (32, lambda y: [heads(y[..., 16:])] + [*y.view(*y.shape[:2], 2, 4, 4).permute(2, 0, 3, 1, 4)], sdpa),
    "three heads": (36, lambda y: [heads(t) for t in y.chunk(3, dim=-1)], sdpa),
    "three seen": (36, lambda y: y.view(*y.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0), sdpa),
}
class Mixer(nn.Module):
    def __init__(self, width, pieces, attend):
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, width), nn.Linear(12 if width == 36 else 16, 16)
        self.pieces, self.attend = pieces, attend
    def forward(self, x):
        mixed = self.attend(*self.pieces(self.qkv(x)))
        return self.proj(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))
class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 24), nn.Linear(12, 16)
    def forward(self, x):
        gate, y = self.up(x).chunk(2, dim=-1)
        return self.down(F.gelu(gate) * y)
class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_qkv, self.to_out = nn.Linear(16, 48, bias=False), nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.1))
        self.net = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, 16))
    def forward(self, x):
        mixed = sdpa(*map(heads, self.to_qkv(x).chunk(3, dim=-1)))
        return self.net(x + self.to_out(mixed.permute(0, 2, 1, 3).reshape(x.shape)))
MODELS = {name: (lambda way: lambda: Stack(lambda: Mixer(*way)))(way) for name, way in WAYS.items()}
MODELS["vision"] = lambda: Stack(Vision)
MODELS["gated"] = lambda: Stack(Gated)
"""
# torch's own attention: with and without weights, masks, rows first, other sizes, one row by itself, dropout.
LOOKS = """
CAUSAL = torch.full((6, 6), float("-inf")).triu(1)
class Look(nn.Module):
    def __init__(self, use, **words):
        super().__init__()
        self.attn, self.use = nn.MultiheadAttention(16, 4, **words), use
        self.dense = nn.Linear(16, 16)
    def forward(self, x):
        found, weights = self.use(self.attn, x, (x[..., 0] > 0.5) & (torch.arange(6) > 0))
        found = self.dense(F.dropout(found, 0.1, self.training))
        return found if weights is None else found + weights.flatten(1).std(-1)[:, None, None]
def turned(attn, x, pad):
    x = x.transpose(0, 1)
    found, weights = attn(x, x.flip(0), x.flip(0), key_padding_mask=pad)
    return found.transpose(0, 1), weights
def alone(attn, x, pad):
    made = [attn(each, each, each, attn_mask=CAUSAL.expand(4, 6, 6)) for each in x]
    return torch.stack([found for found, _ in made]), torch.stack([weights for _, weights in made])
def bias(x):
    middle = x.mean(-1)
    return (torch.arange(1.0, 5)[:, None, None] * middle[:, None, :, None] * middle[:, None, None]).flatten(0, 1)
FIRST = {"batch_first": True}
LOOKS = {
    "self": (lambda attn, x, pad: attn(x, x, x, need_weights=False), FIRST),
    "padded": (lambda attn, x, pad: attn(x, x, x, key_padding_mask=pad, attn_mask=CAUSAL.bool()), FIRST),
    "cross": (lambda attn, x, pad: attn(x, x.cos(), x.cos(), need_weights=False), {**FIRST, "dropout": 0.2}),
    "turned": (turned, {"bias": False}),
    "sizes": (lambda attn, x, pad: attn(x, x[..., :12], x[..., :8], average_attn_weights=False), {**FIRST, "kdim": 12, "vdim": 8}),
    "three": (lambda attn, x, pad: attn(x, x.sin(), x.cos()), {**FIRST, "dropout": 0.1}),
    "alone": (alone, {}),
    "causal": (lambda attn, x, pad: attn(x, x, x, attn_mask=CAUSAL, is_causal=True, need_weights=False), FIRST),
    "causal padded": (lambda attn, x, pad: attn(x, x, x, pad, False, CAUSAL, is_causal=True), FIRST),
    "each head": (lambda attn, x, pad: attn(x, x, x, attn_mask=bias(x), need_weights=False), FIRST),
    "zero": (lambda attn, x, pad: attn(x, x, x), {**FIRST, "add_zero_attn": True, "add_bias_kv": True}),
}
MODELS = {name: (lambda use, words: lambda: Stack(lambda: Look(use, **words)))(*way) for name, way in LOOKS.items()}
"""
TRAINED = """
for name, make in MODELS.items():
    saved += train(name, make(), rebuild)
"""
# The numbers of heads that attention itself is computed for on this rank, forward and backward; products of more than
# two axes where it is by hand; how often parts are put together.
SEEN = """
from lumi_moai.runtime.parallel import draws
from lumi_moai.runtime.parallel.layout.tensor import moves
joins, own = [], moves._join
moves._join = lambda mine, axis: joins.append(tuple(mine.shape)) or own(mine, axis)
from torch.utils._python_dispatch import TorchDispatchMode
class Heads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            sizes = [each.shape for each in args if isinstance(each, torch.Tensor)]
            seen.update(size[1] for size in sizes if len(size) == 4)
        elif "bmm" in str(func):
            seen.add(f"{args[0].shape[0]} of {19 * 4}")
        return func(*args, **(kwargs or {}))
def look(name, model, loss_of):
    model = model.to("cuda")
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    for (rows,) in DataLoader(TensorDataset(tokens), batch_size=19):
        joins.clear()
        with Heads():
            loss_of(model, rows.to("cuda")).backward()
    print(f"{name}: {' '.join(sorted(map(str, seen)))}, {len(joins)} joins")
    seen.clear()
seen = set()
"""
LOOKED_AT = """
for name, make in MODELS.items():
    look(name, make(), rebuild)
"""


def test_pieces_of_a_fused_layer_give_the_one_device_result(tmp_path):
    text = HEAD + TAIL + STACK + WAYS + TRAINED + SAVE
    same_run(tmp_path, text, *plain(tmp_path, text), 2, layout="tp=2")


@pytest.mark.parametrize(("layout", "count"), [("tp=2", 2), ("tp=2,fsdp", 4)])
def test_attention_of_torch_gives_the_one_device_result(tmp_path, layout, count):
    text = HEAD + TAIL + STACK + LOOKS + TRAINED + SAVE
    same_run(tmp_path, text, *plain(tmp_path, text), count, layout=layout)


def test_each_rank_computes_its_own_heads(tmp_path):
    """19 rows of 4 heads: 76 products by hand on one device; three heads cannot be shared out, others are kept whole."""
    run = Run(tmp_path, launch(2), Wishes(layout=Layout.parse("tp=2"), self_check=False))
    ranks = run.ranks(submitit(2), run.script(HEAD + STACK + SEEN + WAYS + LOOKED_AT + LOOKS + LOOKED_AT))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    by_hand = "38 of 76, 0 joins"
    assert dict(line.split(": ") for line in ranks[0].out.splitlines()) == {
        **dict.fromkeys(
            ("nanogpt", "lucidrains", "timm", "stacked", "neox", "narrow", "pairs", "vision"), "2, 0 joins"
        ),
        **dict.fromkeys(("mingpt", "phi3", "qwen", "shared keys"), by_hand),
        "three heads": "3, 8 joins",
        "three seen": "3, 4 joins",
        "gated": ", 0 joins",
        # The Looks' own Linear is gathered; what each head takes is too where it is asked for, as a mask's gradient is.
        **dict.fromkeys(("self", "causal", "causal padded"), "2, 2 joins"),
        **dict.fromkeys(("padded", "cross", "turned", "three"), "38 of 76, 2 joins"),
        **dict.fromkeys(("sizes", "each head"), "38 of 76, 4 joins"),
        "alone": "2 of 76, 2 joins",
        "zero": "76 of 76, 2 joins",
    }


PIECES = strategies.lists(
    strategies.tuples(strategies.integers(0, 3), strategies.integers(1, 4)), min_size=1, max_size=5
)


@given(PIECES, strategies.integers(1, 4))
def test_every_rank_finds_what_it_wants_with_those_that_have_it(gaps_and_sizes, ranks):
    """Pieces of some sizes with gaps between them, of an axis of which each rank has one part at first."""
    spans, end = [], 0
    for gap, size in gaps_and_sizes:
        spans.append((end + gap * ranks, size * ranks))
        end += (gap + size) * ranks
    had = exchange.own_spans([(0, end)], ranks)
    numbers = [[*range(start, start + size)] for ((start, size),) in had]
    for wanted in exchange.own_spans(spans, ranks):
        expected = [number for start, size in wanted for number in range(start, start + size)]
        found = dict.fromkeys(range(len(expected)))
        for rank in range(ranks):
            for to, at, count in exchange.meeting(wanted, had[rank]):
                found.update(zip(range(to, to + count), numbers[rank][at : at + count], strict=True))
        assert [*found.values()] == expected


def test_a_rank_with_a_stream_of_its_own_leaves_that_of_the_group_alone(monkeypatch):
    """What a GPU's attention drops is drawn so; computed again from the same state it is the same."""
    before, drawn, after = torch.get_rng_state(), [], []
    for rank in (0, 1, 0):
        torch.set_rng_state(before)
        monkeypatch.setattr(moves, "rank", lambda rank=rank: rank)
        with scores.own_chance(torch.device("cpu")):
            drawn.append(torch.rand(3).tolist())
        after.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[2] != drawn[1]
    assert after[0] == after[1] == after[2] not in drawn


@pytest.mark.parametrize(
    "make", [lambda rows: torch.ones(rows, 5, 4), lambda rows: torch.ones(5, rows, 4).transpose(0, 1)]
)
@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_is_drawn_for_in_the_order_in_memory_too(make, rows):
    """What MultiheadAttention gives has positions first in memory, which shows less for a rank with a single row."""
    assert draws._ones(3, make(rows)).stride() == make(3).stride()
