"""The layers that composed models of repeated blocks are made of: a name, and its lines.

Attention is put together of how it makes q, k and v, and how it weighs them; blocks of where they have their norms.
"""

ATTENTION = {  # the layers, and how q, k and v of (rows, heads, steps, size) come of h
    "q_proj": (
        "self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 8, bias=False) for _ in range(3))\nself.o_proj = nn.Linear(8, 8, bias=False)",
        "q = self.q_proj(h).view(b, t, HEADS, 8 // HEADS).transpose(1, 2)\n"
        "k = self.k_proj(h).view(b, t, HEADS, 8 // HEADS).transpose(1, 2)\nv = self.v_proj(h).view(b, t, HEADS, -1).transpose(1, 2)",
        "o_proj",
    ),
    "query": (
        "self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)\nself.dense = nn.Linear(8, 8)",
        "q, k, v = (each(h).view(*h.shape[:-1], HEADS, -1).permute(0, 2, 1, 3) for each in (self.query, self.key, self.value))",
        "dense",
    ),
    "c_attn": (
        "self.c_attn, self.c_proj = nn.Linear(8, 24), nn.Linear(8, 8)",
        "q, k, v = self.c_attn(h).split(8, dim=2)\nq, k, v = (each.view(b, t, HEADS, 8 // HEADS).transpose(1, 2) for each in (q, k, v))",
        "c_proj",
    ),
    "to_qkv": (
        "self.to_qkv, self.to_out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8)",
        "q, k, v = (each.reshape(b, t, HEADS, -1).transpose(1, 2) for each in self.to_qkv(h).chunk(3, dim=-1))",
        "to_out",
    ),
    "qkv": (
        "self.qkv, self.proj = nn.Linear(8, 24, bias=True), nn.Linear(8, 8)",
        "qkv = self.qkv(h).reshape(b, t, 3, HEADS, 8 // HEADS).permute(2, 0, 3, 1, 4)\nq, k, v = qkv[0], qkv[1], qkv[2]",
        "proj",
    ),
    "unbound": (
        "self.Wqkv, self.out_proj = nn.Linear(8, 24), nn.Linear(8, 8)",
        "q, k, v = self.Wqkv(h).view(b, t, 3, HEADS, -1).transpose(1, 3).unbind(2)",
        "out_proj",
    ),
    "to_kv": (
        "self.to_q, self.to_kv, self.to_out = nn.Linear(8, 8), nn.Linear(8, 16), nn.Sequential(nn.Linear(8, 8), nn.Dropout(DROP))",
        "k, v = self.to_kv(h).chunk(2, dim=-1)\nq, k, v = (each.view(b, t, HEADS, -1).transpose(1, 2) for each in (self.to_q(h), k, v))",
        "to_out",
    ),
    "grouped": (
        "self.q_proj, self.k_proj = nn.Linear(8, 8), nn.Linear(8, 8 * GROUPS // HEADS)\nself.v_proj, self.o_proj = nn.Linear(8, 8 * GROUPS // HEADS), nn.Linear(8, 8)",
        "q = self.q_proj(h).view(b, t, HEADS, -1).transpose(1, 2)\n"
        "k, v = (each(h).view(b, t, GROUPS, -1).transpose(1, 2).repeat_interleave(HEADS // GROUPS, dim=1) for each in (self.k_proj, self.v_proj))",
        "o_proj",
    ),
    "expanded": (
        "self.wq, self.wk = nn.Linear(8, 8, bias=False), nn.Linear(8, 8 * GROUPS // HEADS, bias=False)\n"
        "self.wv, self.wo = nn.Linear(8, 8 * GROUPS // HEADS, bias=False), nn.Linear(8, 8, bias=False)",
        "q, size = self.wq(h).view(b, t, HEADS, -1).transpose(1, 2), 8 // HEADS\nk, v = (\n"
        "    each(h).view(b, t, GROUPS, 1, size).expand(b, t, GROUPS, HEADS // GROUPS, size).reshape(b, t, HEADS, size).transpose(1, 2)\n"
        "    for each in (self.wk, self.wv)\n)",
        "wo",
    ),
}
WEIGH = {  # more layers, and how a of v's shape comes of q, k, v and the mask, which is true where one may look
    "sdpa": ("", "a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)"),
    "by_hand": (
        "self.attn_drop = nn.Dropout(DROP)",
        "w = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))\nif mask is not None:\n    w = w.masked_fill(~mask, float('-inf'))\n"
        "a = self.attn_drop(F.softmax(w, dim=-1)) @ v",
    ),
    "einsum": (
        "self.scale = (8 // HEADS) ** -0.5",
        "w = torch.einsum('bhqd,bhkd->bhqk', q * self.scale, k)\nw = w if mask is None else torch.where(mask, w, torch.finfo(w.dtype).min)\n"
        "a = torch.einsum('bhqk,bhkd->bhqd', w.softmax(-1), v)",
    ),
    "biased": (
        "self.bias = nn.Parameter(torch.randn(HEADS, 7, 7) / 5)",
        "w = q @ k.mT * 0.5 + self.bias[:, :t, :t]\nw = w if mask is None else w.masked_fill(mask == 0, -1e9)\na = w.softmax(-1) @ v",
    ),
    "sloped": (
        "self.register_buffer('slopes', 2.0 ** -torch.arange(1.0, HEADS + 1), persistent=False)",
        "far = (torch.arange(t)[None] - torch.arange(t)[:, None]).abs()\nw = q @ k.transpose(2, 3) - self.slopes.view(1, -1, 1, 1) * far\n"
        "if mask is not None:\n    w = w + (~mask) * -1e9\na = torch.matmul(torch.softmax(w, -1), v)",
    ),
    "normed": (
        "self.q_norm, self.k_norm = nn.LayerNorm(8 // HEADS, eps=0.1), nn.RMSNorm(8 // HEADS, eps=0.1)",
        "q, k = self.q_norm(q), self.k_norm(k)\na = F.scaled_dot_product_attention(q, k, v, mask)",
    ),
    "unit": (
        "self.heat = nn.Parameter(torch.ones(HEADS, 1, 1))",
        "w = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)) * self.heat\n"
        "w = w if mask is None else w.masked_fill(mask.logical_not(), float('-inf'))\na = w.softmax(dim=-1) @ v",
    ),
}
BACK = (  # heads side by side again
    "a.transpose(1, 2).contiguous().view(b, t, 8)",
    "a.transpose(1, 2).reshape(b, t, -1)",
    "a.permute(0, 2, 1, 3).flatten(2)",
)
MLPS = {  # a class MLP
    "c_fc": (
        "self.c_fc, self.gelu, self.c_proj = nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)\nself.dropout = nn.Dropout(DROP)",
        "return self.dropout(self.c_proj(self.gelu(self.c_fc(h))))",
    ),
    "gated": (
        "self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)",
        "return self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))",
    ),
    "w1": (
        "self.w1, self.w2, self.w3 = nn.Linear(8, 12, bias=False), nn.Linear(12, 8, bias=False), nn.Linear(8, 12, bias=False)",
        "return self.w2(F.silu(self.w1(h)) * self.w3(h))",
    ),
    "gate_up": (
        "self.gate_up_proj, self.down_proj = nn.Linear(8, 24), nn.Linear(12, 8)",
        "gate, up = self.gate_up_proj(h).chunk(2, dim=-1)\nreturn self.down_proj(up * F.gelu(gate))",
    ),
    "fc1": (
        "self.fc1, self.fc2, self.drop = nn.Linear(8, 16), nn.Linear(16, 8), nn.Dropout(DROP)",
        "return self.fc2(self.drop(F.relu(self.fc1(h))))",
    ),
    "listed": (
        "self.net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(DROP), nn.Linear(16, 8), nn.Dropout(DROP))",
        "return self.net(h)",
    ),
    "glu": ("self.fc, self.out = nn.Linear(8, 16), nn.Linear(8, 8)", "return self.out(F.glu(self.fc(h), dim=-1))"),
    "normed": (
        "self.up, self.norm, self.down = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 8)",
        "return self.down(self.norm(self.up(h).relu().square()))",
    ),
    "odd": ("self.lin1, self.lin2 = nn.Linear(8, 13), nn.Linear(13, 8)", "return self.lin2(torch.tanh(self.lin1(h)))"),
}
NORMS = {
    "layer": "nn.LayerNorm(8)",
    "rms": "nn.RMSNorm(8)",
    "own_rms": "RMSNorm(8)",
    "plain": "nn.LayerNorm(8, bias=False)",
}
OWN_RMS = """class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
    def forward(self, h):
        return self.weight * h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
"""
ORDERS = {  # the layers of a block beside its parts, and its lines
    "pre": ("", "h = h + self.attn(self.norm1(h)GIVEN)\nreturn h + self.mlp(self.norm2(h))"),
    "in_place": (
        "",
        "a = self.attn(self.norm1(h)GIVEN)\na += h\nm = self.mlp(self.norm2(a))\nm.add_(a)\nreturn m",
    ),
    "post": (
        "self.drop = nn.Dropout(DROP)",
        "h = self.norm1(h + self.drop(self.attn(hGIVEN)))\nreturn self.norm2(h + self.drop(self.mlp(h)))",
    ),
    "parallel": ("", "n = self.norm1(h)\nreturn self.norm2(h) + self.attn(nGIVEN) + self.mlp(n)"),
    "scaled": (
        "self.gamma1, self.gamma2 = nn.Parameter(torch.full((8,), 0.5)), nn.Parameter(torch.full((8,), 0.5))",
        "h = h + self.gamma1 * self.attn(self.norm1(h)GIVEN)\nreturn h + self.gamma2 * self.mlp(self.norm2(h))",
    ),
    "gated": (
        "self.gate = nn.Linear(8, 8)",
        "n = self.norm1(h)\nh = h + torch.sigmoid(self.gate(n)) * self.attn(nGIVEN)\nreturn h + self.mlp(self.norm2(h))",
    ),
    "dropped_path": (
        "",
        "keep = torch.rand(h.size(0), 1, 1) > 2 * DROP if self.training and DROP else 1.0\n"
        "h = h + keep * self.attn(self.norm1(h)GIVEN)\nreturn h + self.mlp(self.norm2(h))",
    ),
}
TURN = """def turned(q, cos, sin):
    a, b = q.chunk(2, dim=-1)
    return q * cos + torch.cat((-b, a), dim=-1) * sin
"""
TABLES = (
    "angle = torch.arange(h.size(1))[:, None] / 10.0 ** (torch.arange(4 // HEADS) / 2)\n"
    "cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()"
)
PLACES = {  # layers, and what is added to h of (rows, steps, 8)
    "none": ("", ""),
    "learned": ("self.pos = nn.Parameter(torch.randn(1, 7, 8) / 10)", "h = h + self.pos[:, : h.size(1)]"),
    "table": ("self.wpe = nn.Embedding(7, 8)", "h = h + self.wpe(torch.arange(0, h.size(1), dtype=torch.long))"),
    "waves": (
        "angle = torch.arange(7)[:, None] / 10.0 ** (torch.arange(4) / 2)\n"
        "self.register_buffer('waves', torch.cat([angle.sin(), angle.cos()], 1))",
        "h = self.waves[: h.size(1)] + h",
    ),
    "dropped": (
        "self.place, self.drop = nn.Parameter(torch.randn(7, 8) / 5), nn.Dropout(DROP)",
        "h = self.drop(h + self.place[: h.size(1)].unsqueeze(0))",
    ),
}
ENTRIES = {  # of each input: layers, and lines to h of (rows, steps, 8)
    "table": {
        "features": (
            "self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.zeros(6, 8))",
            "h = x.unsqueeze(-1) * self.weight + self.bias",
        ),
        "with_class": (
            "self.weight, self.first = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(1, 1, 8))",
            "h = torch.cat([self.first.expand(x.size(0), -1, -1), x[:, :, None] * self.weight], dim=1)",
        ),
    },
    "picture": {
        "patches": (
            "self.embed, self.first = nn.Linear(9, 8), nn.Parameter(torch.zeros(1, 1, 8))",
            "h = self.embed(x.unfold(2, 3, 3).unfold(3, 3, 3).reshape(x.shape[0], 4, 9))\nh = torch.cat([self.first.repeat(len(x), 1, 1), h], 1)",
        ),
        "conv": (
            "self.patch = nn.Conv2d(1, 8, kernel_size=3, stride=3)",
            "h = self.patch(x).flatten(2).transpose(1, 2)",
        ),
    },
    "series": {
        "linear": ("self.embed = nn.Linear(3, 8)", "h = self.embed(x)"),
        "conv": ("self.embed = nn.Conv1d(3, 8, 3, padding=1)", "h = self.embed(x.transpose(1, 2)).transpose(1, 2)"),
    },
    "words": {
        "table": ("self.embed = nn.Embedding(12, 8)", "h = self.embed(x)"),
        "padded": ("self.embed = nn.Embedding(12, 8, padding_idx=0)", "h = self.embed(x) * math.sqrt(8)"),
        "normed": ("self.embed, self.enter = nn.Embedding(12, 8), nn.LayerNorm(8)", "h = self.enter(self.embed(x))"),
    },
}
STEPS_TO_ROW = {
    "mean": ("", "z = h.mean(dim=1)"),
    "first": ("", "z = h[:, 0]"),
    "last": ("", "z = h[:, -1, :]"),
    "largest": ("", "z = h.max(dim=1).values"),
    "flat": ("self.flat = nn.Linear(8 * STEPS, 8)", "z = self.flat(h.flatten(1))"),
    "weighed": ("self.score = nn.Linear(8, 1)", "z = (self.score(h).softmax(1) * h).sum(1)"),
}
CALLS = {  # how a model holds its blocks, and calls them
    "list": (
        "self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])",
        "for block in self.blocks:\n    h = block(hGIVEN)",
    ),
    "places": (
        "self.layers = nn.ModuleList(Block() for _ in range(DEPTH))",
        "for i in range(len(self.layers)):\n    h = self.layers[i](hGIVEN)",
    ),
    "dictionary": (
        "self.transformer = nn.ModuleDict(dict(h=nn.ModuleList([Block() for _ in range(DEPTH)]), ln_f=nn.LayerNorm(8)))",
        "for block in self.transformer.h:\n    h = block(hGIVEN)\nh = self.transformer.ln_f(h)",
    ),
    "scales": (
        "self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])\nself.scales = nn.Parameter(torch.ones(DEPTH))",
        "for scale, block in zip(self.scales, self.blocks):\n    h = block(scale * hGIVEN)",
    ),
    "skip": (
        "self.layers, self.norm = nn.ModuleList([Block() for _ in range(DEPTH)]), nn.LayerNorm(8)",
        "start = h\nfor layer in self.layers:\n    h = layer(h + 0.1 * startGIVEN)\nh = self.norm(h)",
    ),
    "sequence": ("self.blocks = nn.Sequential(*[Block() for _ in range(DEPTH)])", "h = self.blocks(h)"),
    "inner": (
        "self.trunk = Trunk()",
        "h = self.trunk(hGIVEN)",
    ),
}
TRUNK = """class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.norm = nn.ModuleList([Block() for _ in range(DEPTH)]), nn.LayerNorm(8)
    def forward(self, hTAKEN):
        for layer in self.layers:
            h = layer(hGIVEN)
        return self.norm(h)
"""
TORCHS = {  # torch's own layers; look is (steps, steps), true where one may not look; gone is (rows, steps), true for padding
    "layers": (
        "self.layers = nn.ModuleList([LAYER for _ in range(DEPTH)])\nfor each in self.layers:\n    each.self_attn.dropout = 0.0",
        "for layer in self.layers:\n    h = layer(h, src_mask=look, src_key_padding_mask=gone)",
    ),
    "encoder": (
        "self.encoder = nn.TransformerEncoder(LAYER, DEPTH, enable_nested_tensor=False)\nfor each in self.encoder.layers:\n    each.self_attn.dropout = 0.0",
        "h = self.encoder(h, mask=look, src_key_padding_mask=gone)",
    ),
    "encoder_norm": (
        "self.encoder = nn.TransformerEncoder(LAYER, num_layers=DEPTH, norm=nn.LayerNorm(8), enable_nested_tensor=False)\n"
        "for each in self.encoder.layers:\n    each.self_attn.dropout = 0.0",
        "h = self.encoder(h, look, gone)",
    ),
    "decoder": (
        "self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), DEPTH)",
        "h = self.decoder(h, torch.tanh(h), tgt_mask=look, tgt_key_padding_mask=gone, memory_key_padding_mask=gone)",
    ),
    "crossed": (
        "self.layers = nn.ModuleList(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True) for _ in range(DEPTH))",
        "memory = h\nfor layer in self.layers:\n    h = layer(h, memory, tgt_mask=look, tgt_key_padding_mask=gone, memory_key_padding_mask=gone)",
    ),
    "multihead": (
        "self.attns = nn.ModuleList(nn.MultiheadAttention(8, HEADS, batch_first=True) for _ in range(DEPTH))\n"
        "self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(DEPTH))",
        "for attn, norm in zip(self.attns, self.norms):\n    n = norm(h)\n    h = h + attn(n, n, n, attn_mask=look, key_padding_mask=gone, need_weights=False)[0]",
    ),
}
LAYERS = (
    "nn.TransformerEncoderLayer(8, 2, 16, dropout=DROP, batch_first=True)",
    "nn.TransformerEncoderLayer(d_model=8, nhead=HEADS, dim_feedforward=20, dropout=DROP, activation='gelu', batch_first=True, norm_first=True)",
)
RESIDUALS = {  # blocks of rows, or of each step: their classes' layers and lines; none looks at another step
    "two": (
        "self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)",
        "return h + self.fc2(F.relu(self.fc1(self.norm(h))))",
    ),
    "listed": (
        "self.net = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Dropout(DROP), nn.Linear(16, 8))",
        "return h + self.net(h)",
    ),
    "one": (
        "self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)",
        "return self.norm(h + torch.tanh(self.linear(h)))",
    ),
    "glu": ("self.lin = nn.Linear(8, 16)", "return h + F.glu(self.lin(h), -1)"),
    "highway": (
        "self.transform, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)",
        "g = torch.sigmoid(self.gate(h))\nreturn g * F.relu(self.transform(h)) + (1 - g) * h",
    ),
    "experts": (
        "self.gate, self.experts = nn.Linear(8, 3), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))",
        "w = self.gate(h).softmax(-1)\nreturn h + sum(w[..., i : i + 1] * e(h) for i, e in enumerate(self.experts))",
    ),
    "batchnorm": (
        "self.fc, self.bn, self.out = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8)",
        "return h + self.out(F.relu(self.bn(self.fc(h))))",
    ),
    "low_rank": (
        "self.down, self.up = nn.Linear(8, 3, bias=False), nn.Linear(3, 8, bias=False)",
        "return h + self.up(F.gelu(self.down(h)))",
    ),
    "split": (
        "self.c_fc, self.c_proj = nn.Linear(8, 16), nn.Linear(8, 8)",
        "a, b = torch.split(self.c_fc(h), 8, dim=-1)\nreturn h + self.c_proj(a * b.tanh())",
    ),
}
MIXERS = {  # blocks that mix STEPS steps by layers of their own
    "mixer": (
        "self.norm1, self.norm2, self.mlp = nn.LayerNorm(8), nn.LayerNorm(8), MLP()\nself.steps = nn.Sequential(nn.Linear(STEPS, 10), nn.GELU(), nn.Linear(10, STEPS))",
        "h = h + self.steps(self.norm1(h).transpose(1, 2)).transpose(1, 2)\nreturn h + self.mlp(self.norm2(h))",
    ),
    "conv": (
        "self.norm, self.conv, self.mlp = nn.LayerNorm(8), nn.Conv1d(8, 8, 3, padding=1, groups=8), MLP()",
        "return h + self.mlp(self.norm(self.conv(h.transpose(1, 2)).transpose(1, 2)))",
    ),
    "spectral": (
        "self.norm1, self.norm2, self.mlp = nn.LayerNorm(8), nn.LayerNorm(8), MLP()",
        "h = self.norm1(h + torch.fft.fft2(h, dim=(-2, -1)).real / 4)\nreturn self.norm2(h + self.mlp(h))",
    ),
}
STARTS = {  # behind the layers
    "none": "",
    "normal": "self.apply(self.start)",
    "scaled": "for name, p in self.named_parameters():\n    if name.endswith('proj.weight'):\n        nn.init.normal_(p, mean=0.0, std=0.3 / math.sqrt(2 * DEPTH))",
    "wide": "for p in self.parameters():\n    if p.dim() > 1:\n        nn.init.xavier_uniform_(p)",
}
START = """    def start(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.3)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
"""
FREE = {
    "DROP = 0.15": "DROP = 0.0",
    "code = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)": "code = mu",
}
"""What a model draws by itself, and how it is written without: pieces of a batch draw otherwise than one device."""
