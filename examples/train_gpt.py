"""Train a small GPT from scratch on the sources of Python's own standard library.

One file, one device, and one line for lumi-moai. Run it any way you like, the losses are the same:

    python examples/train_gpt.py                                       # one device
    lumi-moai submit --flavor Large examples/train_gpt.py              # four devices, one batch
    lumi-moai submit --flavor 8xLarge examples/train_gpt.py --batch-size 512

What to expect from the defaults (0.28 M parameters, 32 rows of 64 bytes = 2,048 tokens a step; a byte has 256 values,
so a model that knows nothing starts at ln 256 = 5.55; one that knows only how often each byte occurs ends near 3.1):

    [Step 10/120] | Loss: 4.2454447746276855 | Duration: 0.38 | Throughput: 53894.74 tokens/sec
    [Step 60/120] | Loss: 2.759643316268921 | Duration: 0.35 | Throughput: 58514.29 tokens/sec
    [Step 120/120] | Loss: 2.380589723587036 | Duration: 0.33 | Throughput: 62060.61 tokens/sec
    Training Done

The losses belong to the text, and with it to the version of Python; the rates to two laptop cores. With a learning rate
of 3e-3 it learns no better, and rounding errors grow into different losses from one number of threads to the next.
"""

import argparse
import os
import sysconfig
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

try:
    import lumi_moai
except ImportError:  # without lumi-moai this is a plain script for one device
    lumi_moai = None


def parse_args():
    """The knobs; --batch-size is the global batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=32, help="rows per step, over all devices together")
    parser.add_argument("--block-size", type=int, default=64, help="bytes of text per row")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=120, help="stop here; 0 trains on all of the text")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--log-interval", type=int, default=10)
    parser.add_argument("--save-dir", default="gpt_checkpoint")
    return parser.parse_args()


class Text(Dataset):
    """The modules of the standard library, one after the other, as rows of `block_size` bytes and their successors."""

    def __init__(self, block_size):
        sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))  # about 160 files, 5 MB
        text = b"".join(source.read_bytes() for source in sources)
        self.bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.block_size = block_size

    def __len__(self):
        return (len(self.bytes) - 1) // self.block_size

    def __getitem__(self, row):
        start = row * self.block_size
        window = self.bytes[start : start + self.block_size + 1].long()
        return window[:-1], window[1:]


class Block(nn.Module):
    """Attention, then a two-layer network; each looks at a normalised copy and adds what it found."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        """`x` and the result are (rows, length, width)."""
        rows, length, width = x.shape
        q, k, v = (
            part.view(rows, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, dim=2)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Bytes in, scores of the next byte out; 12 width^2 parameters a layer."""

    def __init__(self, block_size, layers, heads, width):
        super().__init__()
        self.token = nn.Embedding(256, width)
        self.position = nn.Embedding(block_size, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)
        self.apply(self.initialise)

    @staticmethod
    def initialise(module):
        """Small normal weights, as GPT-2 has them."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens, targets):
        """The mean loss over all bytes of `tokens` (rows, length); `targets` is the same text one byte later."""
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    """Train, log, save."""
    args = parse_args()
    torch.manual_seed(args.seed)

    # The one line: from here on the device is all devices of the flavor, and the batch is spread over them.
    if lumi_moai is not None:
        lumi_moai.enable_advanced_parallelization()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GPT(args.block_size, args.layers, args.heads, args.width).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    loader = DataLoader(Text(args.block_size), batch_size=args.batch_size, shuffle=True, drop_last=True)
    optim = torch.optim.AdamW(model.parameters(), lr=args.lr)

    total_steps = len(loader) * args.epochs
    if args.max_steps:
        total_steps = min(total_steps, args.max_steps)
    tokens_per_step = args.batch_size * args.block_size

    model.train()
    step, logged = 0, 0
    start = time.perf_counter()
    for _ in range(args.epochs):
        for tokens, targets in loader:
            loss = model(tokens.to(device), targets.to(device))
            loss.backward()
            optim.step()
            model.zero_grad(set_to_none=True)
            step += 1

            if step % args.log_interval == 0 or step == total_steps:
                value = loss.item()  # waits for the device, so the clock is read after the work and not before it
                if device == "cuda":
                    torch.cuda.synchronize()
                duration = time.perf_counter() - start
                throughput = (step - logged) * tokens_per_step / duration
                print(
                    f"[Step {step}/{total_steps}] | Loss: {value} | Duration: {duration:.2f}"
                    f" | Throughput: {throughput:.2f} tokens/sec",
                    flush=True,
                )
                start, logged = time.perf_counter(), step
            if step == total_steps:
                break

    print("Training Done")
    print("Saving Model...")
    os.makedirs(args.save_dir, exist_ok=True)
    path = os.path.join(args.save_dir, "model.pt")
    torch.save(model.state_dict(), path)
    print(f"Model saved in {path}")


if __name__ == "__main__":
    main()
