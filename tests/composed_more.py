"""Scripts composed at random of whole tasks, and of the ways in which people go through batches, step and judge.

As `composed_scripts.py`, which compares them: `python tests/composed_scripts.py --tasks --count 100 --from 70000`.
"""

import random
import re
import textwrap

import composed_others
import composed_parts
import composed_sequences
import composed_tasks

TASKS = {**composed_tasks.TASKS, **composed_others.TASKS, **composed_sequences.TASKS}
_METRICS = ("confusion_matrix", "f1_score", "mean_squared_error", "roc_auc_score")
_CHOICE = re.compile(r"<<((?:(?!<<|>>).)*)>>", re.DOTALL)

_HEAD = """
import itertools
from torch.utils.data import ConcatDataset
from tqdm import tqdm
stats, kept = defaultdict(float), defaultdict(list)
confusion, labels_seen, preds_seen = torch.zeros(4, 4), [], []
class AverageMeter:
    def __init__(self): self.reset()
    def reset(self): self.val = self.avg = self.sum = self.count = 0
    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count
def accuracy(output, target, topk=(1,)):
    with torch.no_grad():
        maxk, batch_size = max(topk), target.size(0)
        _, pred = output.topk(maxk, 1, True, True)
        correct = pred.t().eq(target.view(1, -1).expand_as(pred.t()))
        return [correct[:k].reshape(-1).to(output.dtype).sum(0, keepdim=True).mul_(100.0 / batch_size) for k in topk]
"""

OPTIMIZERS = """<<
optimizer = torch.optim.<<SGD(model.parameters(), lr=0.05, momentum=0.9)||Adam(model.parameters(), lr=1e-2, eps=1e-3)||AdamW(model.parameters(), lr=1e-2, eps=1e-3)||NAdam(model.parameters(), lr=1e-3, eps=1e-3)||Adagrad(model.parameters(), lr=1e-2, eps=1e-2)>>
||
decay = [p for n, p in model.named_parameters() if p.dim() > 1]
rest = [p for n, p in model.named_parameters() if p.dim() <= 1]
optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0, "lr": 2e-3}], lr=1e-2, eps=1e-3)
||
optimizer = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.03)
for i, group in enumerate(optimizer.param_groups):
    group["lr"] *= 0.9**i
||
first, *others = list(model.parameters())
optimizer = torch.optim.SGD(others, lr=0.05)
optimizer.add_param_group({"params": [first], "lr": 0.01})
>>"""

_PLAIN = "optimizer.zero_grad()\nloss.backward()\n"
STEPS = {  # ahead of the loop, behind the loss, behind the batch, behind the epoch
    "plain": ("", _PLAIN + "optimizer.step()", ""),
    "norm": (
        "",
        _PLAIN
        + 'norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)\nstats["norm"] += norm.item()\noptimizer.step()',
        "",
    ),
    "value": ("", _PLAIN + "nn.utils.clip_grad_value_(model.parameters(), clip_value=0.02)\noptimizer.step()", ""),
    "rest": (
        "optimizer.zero_grad()",
        "(loss / 2).backward()\nif (step + 1) % 2 == 0 or step + 1 == <<len(loader)||LENGTH>>:\n    optimizer.step()\n    optimizer.zero_grad()",
        "",
    ),
    "rest_behind": (
        "optimizer.zero_grad()",
        "(loss / 3).backward()\nif step % 3 == 2:\n    optimizer.step()\n    optimizer.zero_grad()",
        "optimizer.step()\noptimizer.zero_grad()",
    ),
    "lambda": (
        "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 3, 1.0) * 0.5 * (1 + math.cos(math.pi * s / 20)))",
        _PLAIN + "optimizer.step()\nscheduler.step()",
        'print("lr", optimizer.param_groups[0]["lr"])',
    ),
    "one_cycle": (
        "scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, epochs=2, steps_per_epoch=len(loader) + 2, cycle_momentum=False)",
        _PLAIN + "optimizer.step()\nscheduler.step()",
        'print("lr", scheduler.get_last_lr()[0])',
    ),
    "restarts": (
        "scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)",
        _PLAIN + "optimizer.step()\nscheduler.step(epoch + step / len(loader))",
        'print("lr", scheduler.get_last_lr()[0])',
    ),
    "frozen": (
        "def freeze(on):\n    for p in next(iter(model.children())).parameters():\n        p.requires_grad = not on\nfreeze(True)",
        _PLAIN + "optimizer.step()",
        "freeze(epoch % 2 == 1)",
    ),
    "average": (
        "averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)<<||, use_buffers=True>>)",
        _PLAIN + "optimizer.step()\naveraged.update_parameters(model)",
        'print("averaged", sum(p.double().abs().sum().item() for p in averaged.module.parameters()))',
    ),
    "shadow": (
        "class EMA:\n    def __init__(self, model, decay):\n        self.decay, self.shadow = decay, {n: p.detach().clone() for n, p in model.named_parameters()}\n"
        "    def update(self, model):\n        for n, p in model.named_parameters():\n            self.shadow[n] = self.decay * self.shadow[n] + (1 - self.decay) * p.data\n"
        "    def swap(self, model):\n        for n, p in model.named_parameters():\n            p.data, self.shadow[n] = self.shadow[n], p.data\nema = EMA(model, 0.8)",
        _PLAIN + "optimizer.step()\nema.update(model)",
        'ema.swap(model)\nprint("shadow", sum(p.double().abs().sum().item() for p in model.parameters()))\nema.swap(model)',
    ),
    "two_steps": (
        "extra = torch.optim.SGD(list(model.parameters())[-2:], lr=0.02)",
        "for each in (optimizer, extra):\n    each.zero_grad(set_to_none=True)\nloss.backward()\noptimizer.step()\nextra.step()",
        "",
    ),
    "measured": (
        "",
        _PLAIN
        + 'grads = [p.grad.detach().flatten() for p in model.parameters() if p.grad is not None]\nstats["grad"] += torch.cat(grads).norm().item()\n'
        'stats["largest"] = max(stats["largest"], max(g.abs().max().item() for g in grads))\noptimizer.step()',
        "",
    ),
    "scaler": (
        'scaler = torch.amp.GradScaler("cpu", enabled=<<False||True, init_scale=64.0>>)',
        "optimizer.zero_grad()\nscaler.scale(loss).backward()\nscaler.step(optimizer)\nscaler.update()",
        "",
    ),
}

LOOPS = {  # the lines ahead of training, and those that give `step` and `batch`
    "enumerate": ("", "for step, batch in enumerate(loader):"),
    "bar": ("", "bar = tqdm(loader, desc=f'epoch {epoch}', leave=False)\nfor step, batch in enumerate(bar):"),
    "bar_total": ("", "bar = tqdm(enumerate(loader), total=len(loader))\nfor step, batch in bar:"),
    "some": ("", "for step, batch in enumerate(itertools.islice(loader, max(1, len(loader) - 1))):"),
    "counted": ("", "for step, batch in zip(itertools.count(), loader):"),
    "yielded": (
        "def batches(loader):\n    for batch in loader:\n        yield batch",
        "for step, batch in enumerate(batches(loader)):",
    ),
    "ahead": (
        "def ahead(loader):\n    it = iter(loader)\n    held = next(it, None)\n    while held is not None:\n        now, held = held, next(it, None)\n        yield now",
        "for step, batch in enumerate(ahead(loader)):",
    ),
    "forever": (
        "def forever(loader):\n    while True:\n        for batch in loader:\n            yield batch\nstream = forever(loader)",
        "for step in range(len(loader) + 1):\n    batch = next(stream)",
    ),
    "cycle": ("stream = itertools.cycle(loader)", "for step in range(len(loader) + 1):\n    batch = next(stream)"),
    "cycled": ("", "for step, batch in zip(range(len(loader) + 2), itertools.cycle(loader)):"),
    "tried": (
        "stream = iter(loader)\ndef take():\n    global stream\n    try:\n        return next(stream)\n    except StopIteration:\n        stream = iter(loader)\n        return next(stream)",
        "for step in range(len(loader)):\n    batch = take()",
    ),
    "listed": ("", "for step, batch in enumerate(list(loader)):"),
}
BY_HAND = {
    "table": "X, Y",
    "picture": "X, Y",
    "teacher": "X, Y",
    "users": "U, I, R",
    "policy": "X, A",
    "diffusion": "X,",
}
_HANDS = """<<
perm = torch.randperm(ROWS)
for step, start in enumerate(range(0, ROWS, BATCH)):
    index = perm[start : start + BATCH]
    batch = GIVEN
||
order = np.random.permutation(ROWS)
for step in range(math.ceil(ROWS / BATCH)):
    index = order[step * BATCH : (step + 1) * BATCH]
    batch = GIVEN
||
for step in range(4):
    index = torch.randint(0, ROWS, (BATCH,))
    batch = GIVEN
||
for step, index in enumerate(torch.randperm(ROWS).split(BATCH)):
    batch = GIVEN
>>"""
_ZIPPED = """<<
for step, ((x, y), (u,)) in enumerate(zip(loader, free)):
    batch = x, y, u
||
for step, (known, (u,)) in enumerate(zip(itertools.cycle(loader), free)):
    batch = (*known, u)
||
others = iter(free)
for step, (x, y) in enumerate(loader):
    try:
        (u,) = next(others)
    except StopIteration:
        others = iter(free)
        (u,) = next(others)
    batch = x, y, u
||
first, second = iter(loader), iter(free)
for step in range(len(loader)):
    (x, y), (u,) = next(first), next(second)
    batch = x, y, u
>>"""
LOADERS = "batch_size=BATCH, <<shuffle=True||shuffle=True, drop_last=True||sampler=RandomSampler(data)||shuffle=False||shuffle=True, num_workers=1>>"
_TAKEN = {
    '"image"': 'batch["image"], batch["label"]',
    '"anchor"': 'batch["anchor"], batch["positive"], batch["negative"]',
}
_TAKEN |= {
    '"targets"': 'batch["x"], batch["targets"]["class"], batch["targets"]["value"]',
    "(X[i], X[j])": "*batch[0], batch[1]",
}
PRINTED = """<<
||
if step % 2 == 0:
    print(f"[{epoch}/{step}] {value:.5f} {stats['n']:.0f}")
||
print("step", step, round(value, 5), n_rows)
>>"""
EPOCHS = """<<
print(f"epoch {epoch}: {stats['loss'] / max(1, stats['n']):.6f}", {k: round(v, 5) for k, v in sorted(stats.items(), key=str)})
||
print(json.dumps({str(k): float(v) for k, v in stats.items()}, sort_keys=True), meter.avg, meter.count)
||
print("loss", meter.avg, "of", meter.count, sorted((str(k), v) for k, v in stats.items()))
>>"""


class Composer:
    """One script of a seed."""

    def __init__(self, seed):
        self.seed, self.chance, self.names = seed, random.Random(seed), []
        self.batch = self.chance.randint(5, 11)
        self.rows = self.chance.randint(19, 37)
        self.rows += self.rows % self.batch == 1
        self.task_name = self.one("task", TASKS)
        self.task = TASKS[self.task_name]

    def one(self, group, among):
        """One of the names *among*, noted under *group*."""
        self.names.append(f"{group}={self.chance.choice(list(among))}")
        return self.names[-1].partition("=")[2]

    def fill(self, text):
        """*text* with one of each choice, and its names noted."""
        while found := _CHOICE.search(text):
            text = text[: found.start()] + self.chance.choice(found[1].split("||")) + text[found.end() :]
        return "\n".join(line.rstrip() for line in textwrap.dedent(text).splitlines() if line.strip())

    def loop(self, is_dictionary):
        """The lines ahead of training, and the head of the loop."""
        if self.task_name == "two_loaders":
            return "", self.fill(_ZIPPED)
        if self.task_name in BY_HAND and not is_dictionary and self.chance.random() < 0.15:
            self.names.append("loop=by_hand")
            named = BY_HAND[self.task_name].rstrip(",").split(", ")
            return "", self.fill(_HANDS).replace("GIVEN", ", ".join(f"{name}[index]" for name in named) + ",")
        return LOOPS[self.one("loop", LOOPS)]

    def body(self, taken, step):
        """The lines from a batch to the step, and to what is counted."""
        forward = self.fill(self.task.forward)
        if self.chance.random() < 0.1 and "autograd" not in forward:
            self.names.append("autocast")
            forward = f"with torch.autocast('cpu', dtype=torch.bfloat16):\n{_in(forward)}\nout = out.to(torch.get_default_dtype())"
        counted = f'n_rows = {self.fill(self.task.count)}\nvalue = loss.item()\nstats["loss"] += value * n_rows\nstats["n"] += n_rows'
        metric, after = (self.fill(text) for text in self.task.metric)
        lines = [taken, forward, step, counted, "meter.update(value, n_rows)", self.fill(self.task.behind), metric]
        return "\n".join(line for line in lines if line), forward, after

    def evaluation(self, taken, forward):
        """A function that judges the model, and its call behind an epoch."""
        if (
            "autograd" in forward
            or "backward" in forward
            or self.task_name == "two_loaders"
            or self.chance.random() < 0.3
        ):
            return "", ""
        self.names.append("judged")
        judged = f"right += {self.task.judged}" if self.task.judged else "right += (out > 0).sum().item()"
        made = (
            f"@torch.no_grad()\ndef evaluate(model, loader):\n    global state\n    model.eval()\n    total = right = count = 0\n    for batch in loader:\n"
            f"{_in(taken, 2)}\n{_in(forward, 2)}\n        total += loss.item() * len(out)\n        count += len(out)\n{_in(judged, 2)}\n    model.train()\n    return total / count, right / count"
        )
        stop = self.fill("""
        score, right = evaluate(model, val)
        print(f"judged {score:.5f} {right:.5f}")
        <<
        if score < best[0]:
            best = (score, copy.deepcopy(model.state_dict()))
        elif epoch > 0:
            model.load_state_dict(best[1])
        ||
        if score > best[0] - 1e-4:
            print("early stopping")
            break
        best = (score, {k: v.clone() for k, v in model.state_dict().items()})
        ||
        history.append({"epoch": epoch, "score": score})
        print(min(history, key=lambda h: h["score"])["epoch"])
        >>""")
        return made, stop

    def compose(self):
        """The text of the script."""
        data, model = self.fill(self.task.data), self.fill(self.task.model)
        given = next((words for mark, words in _TAKEN.items() if mark in data), "batch")
        taken = f"{self.task.taken} = {given}" if self.task.taken != "x" else "x = batch[0]"
        among = [
            name for name in STEPS if (name, self.task_name) not in (("frozen", "two_loaders"), ("two_steps", "gan"))
        ]
        ahead, step, behind = STEPS[self.one("step", among)]
        loop_ahead, head = self.loop(given != "batch")
        step = self.fill(step).replace("LENGTH", "-(-len(data) // BATCH)")
        body, forward, after = self.body(taken, step)
        made, stop = self.evaluation(taken, forward)
        collate = ", collate_fn=collate" if self.task.collate else ""
        loaders = f"loader = DataLoader(data, {self.fill(LOADERS)}{collate})\nval = DataLoader(data, batch_size=BATCH + 2{collate})"
        postfix = "\nbar.set_postfix(loss=f'{value:.3f}', n=n_rows)" if "bar" in head else ""
        each = self.fill(PRINTED) + postfix
        tail = "\n".join(line for line in (behind, self.fill(EPOCHS), after.strip(), stop) if line)
        setup = "\n".join([self.fill(self.task.setup), self.fill(OPTIMIZERS), self.fill(ahead), loop_ahead, made])
        parts = [data, loaders, model, setup, "best, history, state = (float('inf'), None), [], None"]
        shape = self.one("shape", ("flat", "step", "epoch", "trainer"))
        reset = "meter = AverageMeter()\nstats.clear()\nkept.clear()"
        if "torch.cat" in forward:  # dropout of rows that a script joined has another mask, as the runtime's page says
            parts[2] = re.sub(r"(Dropout(2d)?)\([0-9.]+\)", r"\1(0.0)", model)
        text = "\n".join([*parts, _SHAPES[shape](body, head, each, reset, tail)])
        text += "\ntorch.save([p.detach() for p in model.parameters()] + list(model.buffers()), sys.argv[1])\n"
        constants = f"ROWS, BATCH = {self.rows}, {self.batch}\n"
        used = [name for name in _METRICS if name + "(" in text]  # the import takes longer than the script
        constants += f"from sklearn.metrics import {', '.join(used)}\n" if used else ""
        return composed_parts.HEAD.replace("SEED", str(self.seed % 97)) + _HEAD + constants + text, tuple(self.names)


_GLOBALS = "global confusion, state, preds_seen, labels_seen, value, n_rows, meter, best"


def _in(text, depth=1):
    return textwrap.indent(text, "    " * depth)


def _flat(body, head, each, reset, tail):
    turn = f"{head}\n{_in(body)}\n{_in(each)}"
    return f"for epoch in range(2):\n    model.train()\n{_in(reset)}\n{_in(turn)}\n{_in(tail)}"


def _step(body, head, each, reset, tail):
    made = f"def train_step(step, batch):\n    {_GLOBALS}\n    model.train()\n{_in(body)}\n    return value"
    return f"{made}\n{_flat('value = train_step(step, batch)', head, each, reset, tail)}"


def _epoch(body, head, each, reset, tail):
    turn = f"{head}\n{_in(body)}\n{_in(each)}"
    made = f"def train_one_epoch(model, loader, optimizer, epoch):\n    {_GLOBALS}\n    model.train()\n{_in(reset)}\n{_in(turn)}\n    return meter.avg"
    return f"{made}\nfor epoch in range(2):\n    print('trained', train_one_epoch(model, loader, optimizer, epoch))\n{_in(tail)}"


def _trainer(body, head, each, reset, tail):
    made = (
        "class Trainer:\n    def __init__(self, model, optimizer, loader):\n        self.model, self.optimizer, self.loader, self.steps = model, optimizer, loader, 0\n"
        f"    def step(self, step, batch):\n        {_GLOBALS}\n        model, optimizer = self.model, self.optimizer\n{_in(body, 2)}\n"
        f"        self.steps += 1\n        return loss.detach()\n    def fit(self, epochs):\n        {_GLOBALS}, epoch, step\n        model, loader = self.model, self.loader\n"
        f"        for epoch in range(epochs):\n            self.model.train()\n{_in(reset, 3)}\n"
    )
    turn = f"{head}\n    last = self.step(step, batch)\n{_in(each)}"
    return f"{made}{_in(turn, 3)}\n            print('last', last.item(), self.steps)\n{_in(tail, 3)}\nTrainer(model, optimizer, loader).fit(2)"


_SHAPES = {"flat": _flat, "step": _step, "epoch": _epoch, "trainer": _trainer}


def composed(seed):
    """The script of a seed, and the names of its parts."""
    return Composer(seed).compose()
