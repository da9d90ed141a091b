"""Training scripts for one device, composed at random of parts that people write, and compared with several ranks.

Each seed is one script, the same on every machine. To look for more faults than the tests have time for:

    python tests/composed_scripts.py --count 200 --from 1000
    python tests/composed_scripts.py --show 1017
    python tests/composed_scripts.py --blocks --count 100 --from 2000 --layout tp=2

A script prints its numbers and saves its weights. What several ranks print must be what plain `python` prints, or they
refuse the script by name. Where they differ in float32 and agree in float64, the script makes much of the last digit.
"""

import argparse
import os
import random
import sys
import tempfile
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import composed_blocks as blocks
import composed_layers as layers
import composed_loops as loops
import composed_more as more
import composed_parts as parts
import composed_steps as steps


@dataclass(frozen=True)
class Composed:
    """A script, and the names of its parts."""

    text: str
    names: tuple[str, ...]


class _Composer:
    def __init__(self, seed, has_blocks):
        self.seed, self.has_blocks = seed, has_blocks
        self.chance = random.Random(seed)
        self.names = []
        self.rows, self.batch = self.chance.randint(17, 37), self.chance.randint(5, 11)
        self.rows += self.rows % self.batch == 1 and self.chance.random() < 0.8  # one row alone has no deviation
        self.input = self.one("input", tuple(parts.INPUTS))
        self.target = self.one("target", parts.FITS[self.input])

    def one(self, group, among):
        """One of the names *among*, noted under *group*."""
        name = self.chance.choice(list(among))
        self.names.append(f"{group}={name}")
        return name

    def some(self, group, among, most):
        """Up to *most* of the names *among*."""
        found = self.chance.sample(list(among), min(len(among), self.chance.randint(0, most)))
        self.names += [f"{group}={name}" for name in found]
        return found

    def data(self):
        """The lines ahead of the model, the loop's target and the first lines in it."""
        lines = [parts.INPUTS[self.input], parts.TARGETS[self.target]]
        if self.input == "words":
            made, target, first = parts.WORDS[self.target], "x, y, lengths", ""
        else:
            made, target, first = parts.DATASETS[self.one("data", parts.DATASETS)]
        words = (
            parts.LOADERS["ordered"]
            if "data=stream" in self.names
            else parts.LOADERS[self.one("loader", parts.LOADERS)]
        )
        collate = ", collate_fn=collate" if "def collate" in made else ""
        loader = f"loader = DataLoader(data, {words}{collate})\ncheck = DataLoader(data, batch_size=BATCH + 2{collate})"
        return [*lines, made.strip(), loader], target, first

    def body(self):
        """What is ahead of the class, lines of `__init__` and `forward`, the last lines of `__init__`, and a method."""
        made, called = parts.BODIES[self.input][self.one("body", parts.BODIES[self.input])]
        return "", [made], [called], [], ""

    def blocks(self):
        """The same of repeated blocks."""
        made = blocks.body(self.one, self.chance, self.input, lengths=self.input == "words" or None)
        behind = [layers.STARTS[made.start]] if made.start != "none" else []
        return made.ahead, list(made.init), list(made.lines), behind, layers.START if made.start == "normal" else ""

    def head(self):
        """The line that makes the head."""
        if self.has_blocks and self.target == "token" and self.one("head", ("own", "tied")) == "tied":
            return "self.head = nn.Linear(8, 12, bias=False)\nself.head.weight = self.embed.weight"
        return f"self.head = nn.Linear(8, {parts.WIDTH_OUT[self.target]})"

    def model(self):
        """A class, and the model."""
        ahead, init, lines, behind, method = self.blocks() if self.has_blocks else self.body()
        if self.target == "token":
            lines.append("return self.head(h)")
        elif self.input == "words":
            lines.append(parts.POOLS[self.one("pool", parts.POOLS)])
        if self.target == "rebuild":
            shape = {"table": "6", "picture": "36"}[self.input]
            init += ["self.mu, self.logvar = nn.Linear(8, 3), nn.Linear(8, 3)"]
            init += [f"self.head = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, {shape}))"]
            drawn = self.one("latent", ("drawn", "plain"))
            lines.append("mu, logvar = self.mu(z), self.logvar(z)")
            lines.append(
                "code = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)" if drawn == "drawn" else "code = mu"
            )
            lines.append("return self.head(code).view_as(x), mu, logvar")
        else:
            init.append(self.head())
            if self.target != "token":
                lines.append("return self.head(z)")
        init += behind
        given = "x, lengths" if self.input == "words" else "x"
        return (
            f"{ahead}class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n{_in(chr(10).join(init), 2)}\n{method}"
            f"    def forward(self, {given}):\n{_in(chr(10).join(lines), 2)}\nmodel = Net()"
        ), f"model({given})"

    def forward(self, call):
        """The lines ahead of the model, and those from there to the loss."""
        ahead, lines = "", []
        if self.input != "words":
            # A model that rebuilds gives several things, of which `nudged` asks none.
            noise = [name for name in loops.NOISE if (name, self.target) != ("nudged", "rebuild")]
            ahead = loops.NOISE[self.one("noise", noise) if self.chance.random() < 0.6 else "none"]
        lines.append(("out, mu, logvar = " if self.target == "rebuild" else "out = ") + call)
        among = list(loops.LOSSES[self.target])
        lines.append(loops.LOSSES[self.target][self.one("loss", among)])
        terms = [
            name for name in loops.TERMS if self.target != "token" or name in ("l1", "l2", "norm", "clamped", "scaled")
        ]
        lines += [loops.TERMS[name] for name in self.some("term", terms, 2)]
        return ahead, "\n".join(lines)

    def logs(self, target_has_index):
        """The lines of what is logged: ahead of an epoch, in the loop, behind the epoch."""
        own = {**steps.LOGS_OF[self.target], **(steps.LOGS_OF_INDEX if target_has_index else {})}
        general = dict(steps.LOGS)
        if self.target == "token":  # batches of several widths cannot be put one below the other
            general = {name: each for name, each in general.items() if name not in ("stacked", "arrays")}
        found = [general[name] for name in self.some("log", general, 3)] + [
            own[name] for name in self.some("log", own, 2)
        ]
        return (
            ["\n".join(line for line in column if line) for column in zip(*found, strict=True)]
            if found
            else ["", "", ""]
        )

    def check(self, call):
        """Evaluation behind an epoch."""
        if self.one("check", ("none", "loss", "stacked")) == "none":
            return ""
        taken = f"{call}[0]" if self.target == "rebuild" else call
        if self.names[-1] == "check=loss":
            body = f"    out = {taken}\n    sums += out.pow(2).sum().item()\n    count += len(out)"
            tail = "print('check', sums / count, count)"
        else:
            body = f"    out = {taken}\n    sums += out.flatten().sum().item()\n    count += out.size(0)"
            tail = "print(f'check {sums:.5f} {count}')"
        first = f"{_in(self.first, 2)}\n" if self.first else ""
        return f"model.eval()\nsums, count = 0.0, 0\nwith torch.no_grad():\n    for {self.target_words} in check:\n{first}{_in(body, 1)}\n{tail}"

    def compose(self):
        """The whole script."""
        made, self.target_words, self.first = self.data()
        model, call = self.model()
        noise, forward = self.forward(call)
        # Words come with their lengths, which `pieces` does not cut.
        step = self.one("step", [name for name in steps.STEPS if (name, self.input) != ("pieces", "words")])
        optimizer = self.one("optimizer", steps.OPTIMIZERS)
        ahead, behind = steps.STEPS[step]
        if step in steps.CLOSED:
            again = f"\nwith torch.no_grad():\n    {'out, mu, logvar' if self.target == 'rebuild' else 'out'} = {call}"
            body = behind.replace("    INNER", _in(forward, 1)) + again
        else:
            body = f"{forward}\n" + behind.replace("FORWARD", forward)
        has_index = "index" in self.target_words + self.first
        before, each, after = self.logs(has_index)
        end = steps.ENDS[self.one("end", steps.ENDS)]
        extra = "weights = nn.Parameter(torch.zeros(4))\n" if "loss=uncertain" in self.names else ""
        parameters = "[*model.parameters(), weights]" if extra else "model.parameters()"
        # The self-check, which cannot follow `next`, is what finds that a model reads padding.
        reads_padding = self.input == "words" and "mask=none" in self.names
        loop = self.one("loop", ("enumerate", "counter", "next")[: 2 if reads_padding else 3])
        inner = "\n".join(line for line in (self.first, noise, body, each) if line)
        if loop == "enumerate":
            turn = f"for step, ({self.target_words}) in enumerate(loader):\n{_in(inner, 1)}"
        elif loop == "counter":
            turn = f"step = 0\nfor {self.target_words} in loader:\n{_in(inner, 1)}\n    step += 1"
        else:
            turn = f"batches = iter(loader)\nfor step in range(len(loader)):\n    {self.target_words} = next(batches)\n{_in(inner, 1)}"
        check = self.check(call)
        epoch = "\n".join(line for line in ("model.train()", before, turn, after, end, check) if line)
        plateau = "plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)\n"
        setup = (
            f"{extra}optimizer = {steps.OPTIMIZERS[optimizer].replace('PARAMETERS', parameters)}\n{ahead}\n"
            f"{plateau if 'plateau.' in end else ''}norms, best, seen_loss = [], (float('inf'), None), torch.zeros(ROWS)\n"
        )
        text = f"{chr(10).join(made)}\n{model}\n{setup}for epoch in range(2):\n{_in(epoch, 1)}\n"
        text += "torch.save([p.detach() for p in model.parameters()] + list(model.buffers()), sys.argv[1])\n"
        if self.one("shape", ("flat", "main")) == "main":
            # A worker cannot send back batches of a class that a function made, and plain Python waits for them.
            is_of_a_function = any(made in text for made in ("class Batch", "= namedtuple("))
            text = text.replace("num_workers=1", "num_workers=0") if is_of_a_function else text
            text = f"def main():\n{_in(text, 1)}\nif __name__ == '__main__':\n    main()\n"
        constants = f"ROWS, BATCH = {self.rows}, {self.batch}\n"
        return Composed(f"{parts.HEAD.replace('SEED', str(self.seed % 97))}{constants}{text}", tuple(self.names))


def _in(text, depth):
    return textwrap.indent(text, "    " * depth)


def composed(seed, has_blocks=False):
    """The script of a seed; of a model of repeated blocks if *has_blocks*."""
    return _Composer(seed, has_blocks).compose()


def composed_task(seed):
    """The script of a seed in the grammar of whole tasks."""
    return Composed(*more.composed(seed))


# ----------------------------------------------------------------------------------------------------------- comparing
_TORCH = "import torch\n"
_DOUBLE = "import torch\ntorch.set_default_dtype(torch.float64)\n"


@dataclass(frozen=True)
class Compared:
    """What became of a script: SAME, REFUSED, ROUNDED, BROKEN (already on one device) or FAULT; and why."""

    verdict: str
    why: str = ""


def compared(text, folder, count=2, layout="", double=True):
    """Run *text* by plain `python` and on *count* ranks in *layout*."""
    import one_device
    from runtime_ranks import Run, launch, submitit

    from lumi_moai.plan import Layout, Wishes

    folder.mkdir(parents=True)
    if any(word in layout for word in ("pp=", "micro_batches=", "compile")):  # whose dropout is another one
        text = blocks.without_draws(text)
    try:
        lines, weights = one_device.plain(folder, text)
    except AssertionError as error:
        return Compared("BROKEN", str(error).strip().splitlines()[-1])
    if any("nan" in line for line in lines) or any(each.isnan().any() for each in weights):
        return Compared("BROKEN", "gives no numbers")
    run = Run(folder / "run", launch(count), Wishes(layout=Layout.parse(layout)))
    ranks = run.ranks(submitit(count), run.script(text), str(run.folder / "weights.pt"))
    if any(rank.code for rank in ranks):
        return _stopped(ranks)
    try:
        one_device.assert_same_ranks(run, ranks, lines, weights)
    except AssertionError as error:
        if (
            double
            and compared(text.replace(_TORCH, _DOUBLE, 1), folder / "double", count, layout, False).verdict == "SAME"
        ):
            return Compared("ROUNDED", str(error).partition("\n")[0])
        return Compared("FAULT", str(error)[:300])
    return Compared("SAME")


def _stopped(ranks):
    said = "\n".join(rank.err for rank in ranks).strip()
    reason = [line for line in said.splitlines() if not line.startswith("lumi-moai: certificate")]
    refusal = [line for line in reason if line.startswith("lumi-moai: Error: ")]  # by one rank; others lose it then
    if refusal and "Traceback" not in said:
        return Compared("REFUSED", refusal[0])
    return Compared("FAULT", reason[-1] if reason else "no word")


def main():
    """Compose as many scripts as are asked for, compare each, and say what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layout", default="", help="as --layout of submit")
    parser.add_argument("--blocks", action="store_true", help="only models of repeated blocks")
    parser.add_argument("--show", type=int, metavar="SEED", help="print a script, and run nothing")
    parser.add_argument("--tasks", action="store_true", help="the grammar of whole tasks (composed_more.py)")
    asked = parser.parse_args()
    compose = composed_task if asked.tasks else partial(composed, has_blocks=asked.blocks)
    if asked.show is not None:
        sys.exit(print(compose(asked.show).text))
    root = str(Path(__file__).parent.parent)
    os.environ.update(PYTHONPATH=root, PYTHONDONTWRITEBYTECODE="", LUMI_MOAI_STUCK_SECONDS="30")
    sys.path.insert(0, root)
    found = Counter()
    for seed in range(asked.first, asked.first + asked.count):
        script = compose(seed)
        with tempfile.TemporaryDirectory() as folder:
            become = compared(script.text, Path(folder) / "work", asked.ranks, asked.layout)
        found[become.verdict] += 1
        if become.verdict != "SAME":
            print(seed, become.verdict, become.why, *script.names, flush=True)
    print(*(f"{verdict} {count}" for verdict, count in found.items()))
    return int(bool(found["FAULT"]))


if __name__ == "__main__":
    sys.exit(main())
