"""Models of repeated blocks, composed at random: what layouts that spread products or cut in stages are made for.

A body takes the batch's `x` to `h` of width 8, for each step of a row, or to `z` for each row. Its parts are in
`composed_layers`.
"""

import textwrap
from dataclasses import dataclass

import composed_layers as layers


@dataclass(frozen=True)
class Body:
    """Classes ahead of the model's, lines of its `__init__` and its `forward`, and how its weights begin."""

    ahead: str
    init: tuple[str, ...]
    lines: tuple[str, ...]
    start: str


def _class(name, init, lines, taken):
    inner = f"super().__init__()\n{init}"
    return (
        f"class {name}(nn.Module):\n    def __init__(self):\n{textwrap.indent(inner.strip(), ' ' * 8)}\n"
        f"    def forward(self, h{taken}):\n{textwrap.indent(lines, ' ' * 8)}\n"
    )


class _Blocks:
    def __init__(self, one, chance, kind, lengths):
        self.one, self.chance, self.kind, self.lengths = one, chance, kind, lengths

    def constants(self, entry):
        """The script's own, of which the layers are made."""
        heads = self.chance.choice((2, 2, 4, 1))
        groups = self.chance.choice([g for g in (1, 2, 4) if heads % g == 0])
        drop = "DROP = 0.15" if self.lengths is None and self.chance.random() < 0.5 else "DROP = 0.0"
        steps = {"table": 6, "picture": 4, "series": 5}.get(self.kind, 1) + (entry in ("with_class", "patches"))
        return f"HEADS, GROUPS, DEPTH, STEPS = {heads}, {groups}, {self.chance.choice((2, 2, 3, 4))}, {steps}\n{drop}\n"

    def masks(self):
        """How one looks: at everything, back only, at words only; the lines that make the mask of attention by hand."""
        causal = "mask = torch.ones(h.size(1), h.size(1)).tril().bool()"
        if self.lengths is None:
            return self.one("mask", ("none", "causal")), {"none": "mask = None", "causal": causal}
        words = "mask = (x != 0)[:, None, None, :]"
        both = f"{causal} & (x != 0)[:, None, None]"
        found = {"words": words, "causal": causal, "both": both, "none": "mask = None"}
        return self.one("mask", ("words", "words", "both", "both", "causal", "none")), found

    def transformer(self):
        made, cut, back = layers.ATTENTION[self.one("attention", layers.ATTENTION)]
        more, weigh = layers.WEIGH[self.one("weigh", layers.WEIGH)]
        turn = self.one("turn", ("none", "given", "own")) if "8 // HEADS" not in more else "none"
        rotate = "q, k = turned(q, cos, sin), turned(k, cos, sin)" if turn != "none" else ""
        tables = layers.TABLES if turn == "own" else ""
        mask, masks = self.masks()
        held = self.one(
            "held", [name for name in layers.CALLS if name != "sequence" or (mask == "none" and turn != "given")]
        )
        given, taken = ("", "") if held == "sequence" else self.arguments(turn)
        here = "mask = None" if held == "sequence" else ""
        body = "\n".join(
            line
            for line in (
                "b, t, _ = h.shape",
                here,
                tables,
                cut,
                rotate,
                weigh,
                f"return self.{back}({self.chance.choice(layers.BACK)})",
            )
            if line
        )
        norm = self.one("norm", layers.NORMS)
        extra, order = layers.ORDERS[self.one("order", layers.ORDERS)]
        parts = f"self.norm1, self.norm2, self.attn, self.mlp = {layers.NORMS[norm]}, {layers.NORMS[norm]}, Attention(), MLP()\n{extra}"
        ahead = (
            (layers.OWN_RMS if norm == "own_rms" else "")
            + (layers.TURN if turn != "none" else "")
            + _class("Attention", f"{made}\n{more}", body, taken)
            + self.mlp()
            + _class("Block", parts, order.replace("GIVEN", given), taken)
        )
        init, call = layers.CALLS[held]
        if held == "inner":
            ahead += layers.TRUNK.replace("TAKEN", taken).replace("GIVEN", given)
        lines = (
            masks[mask] if held != "sequence" else "",
            layers.TABLES if turn == "given" else "",
            call.replace("GIVEN", given),
        )
        return ahead, init, lines

    def arguments(self, turn):
        """What a block is given beside `h`, and how its forward takes that."""
        if turn == "given":
            return self.chance.choice(
                (
                    (", cos, sin, mask", ", cos, sin, mask"),
                    (", mask=mask, cos=cos, sin=sin", ", mask=None, cos=None, sin=None"),
                )
            )
        return self.chance.choice(((", mask", ", mask=None"), (", mask=mask", ", mask=None"), (", mask", ", mask")))

    def mlp(self):
        init, lines = layers.MLPS[self.one("mlp", layers.MLPS)]
        return _class("MLP", init, lines, "")

    def torchs(self):
        init, lines = layers.TORCHS[self.one("torch", layers.TORCHS)]
        mask, _ = self.masks()
        look = (
            "nn.Transformer.generate_square_subsequent_mask(h.size(1)).isinf()"
            if mask in ("causal", "both")
            else "None"
        )
        gone = "x == 0" if mask in ("words", "both") else "None"
        return "", init.replace("LAYER", self.chance.choice(layers.LAYERS)), (f"look, gone = {look}, {gone}", lines)

    def residual(self):
        among = [name for name in layers.RESIDUALS if name != "batchnorm" or self.kind == "table"]
        init, lines = layers.RESIDUALS[self.one("residual", among)]
        held, call = layers.CALLS[self.one("held", [name for name in layers.CALLS if name != "inner"])]
        return _class("Block", init, lines, ""), held, (call.replace("GIVEN", ""),)

    def mixer(self):
        init, lines = layers.MIXERS[self.one("mixer", layers.MIXERS)]
        held, call = layers.CALLS[self.one("held", [name for name in layers.CALLS if name != "inner"])]
        return self.mlp() + _class("Block", init, lines, ""), held, (call.replace("GIVEN", ""),)


def body(one, chance, kind, lengths=None):
    """A body for inputs of *kind*; *one* chooses a name of a group and notes it. *lengths* where rows are padded."""
    made = _Blocks(one, chance, kind, lengths)
    families = ["transformer", "transformer", "transformer", "torchs", "torchs", "residual"]
    family = one("blocks", families if lengths else [*families, "mixer"])
    is_rows = kind == "table" and family == "residual"
    entry = "rows" if is_rows else one("entry", layers.ENTRIES[kind])
    enter, lines = (
        ("self.enter = nn.Linear(6, 8)", ["h = self.enter(x)"]) if is_rows else _entered(layers.ENTRIES[kind][entry])
    )
    place, opened = ("", "") if is_rows else layers.PLACES[one("places", layers.PLACES)]
    constants = made.constants(entry)
    ahead, held, called = getattr(made, family)()
    leave, left = ("self.last = nn.LayerNorm(8)", "h = self.last(h)") if chance.random() < 0.5 else ("", "")
    pool, pooled = ("", "z = h") if is_rows else ("", "")
    if kind != "words" and not is_rows:
        pool, pooled = layers.STEPS_TO_ROW[one("to_row", layers.STEPS_TO_ROW)]
    init = tuple(line for line in (enter, place, held, leave, pool) if line)
    lines = tuple(line for line in (*lines, opened, *called, left, pooled) if line)
    return Body(constants + ahead, init, lines, one("start", layers.STARTS))


def _entered(entry):
    return entry[0], [entry[1]]


def without_draws(text):
    """*text*, whose model draws nothing by itself."""
    for drawn, free in layers.FREE.items():
        text = text.replace(drawn, free)
    return text
