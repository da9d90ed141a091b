"""Models whose blocks are in pipeline stages: the same losses, norms, weights and files as on one device."""

import subprocess
import sys

import layout_scripts as scripts
import pytest
from one_device import plain, same_run


@pytest.mark.parametrize(("layout", "count"), [("pp=2,micro_batches=3,recompute=every-2", 2), ("pp=2,dp=2", 4)])
def test_a_transformer_trains_alike_in_stages(tmp_path, layout, count):
    """Tied weights, a number alone, a frozen weight, accumulation, clipping, a last batch of 3 rows, evaluation."""
    lines, weights = plain(tmp_path, scripts.GPT)
    _, ranks = same_run(tmp_path, scripts.GPT, lines, weights, count, layout=layout)
    pieces = 3 if count == 2 else 2
    assert f"num_stages : 2, num_micro_batches : {pieces}" in ranks[0].err
    assert "the self-check could not be made: no rank has the whole model" in ranks[0].err


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
sequential(); skip(); asked(); dropped()
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
