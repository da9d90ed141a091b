"""What people write around a step, and what they count and print."""

OPTIMIZERS = {
    "sgd": "torch.optim.SGD(PARAMETERS, lr=0.05)",
    "momentum": "torch.optim.SGD(PARAMETERS, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3)",
    "adam": "torch.optim.Adam(PARAMETERS, lr=1e-2, eps=1e-3)",
    "adamw": "torch.optim.AdamW(PARAMETERS, lr=1e-2, eps=1e-3, weight_decay=0.1)",
    "rmsprop": "torch.optim.RMSprop(PARAMETERS, lr=1e-3, eps=1e-2)",
}

# What is made ahead of the loop, and the lines behind the loss. FORWARD stands for the lines from the model to the loss.
STEPS = {
    "plain": ("", "optimizer.zero_grad()\nloss.backward()\noptimizer.step()"),
    "before": ("", "loss.backward()\noptimizer.step()\nmodel.zero_grad(set_to_none=False)"),
    "clipped": (
        "",
        "optimizer.zero_grad(set_to_none=True)\nloss.backward()\n"
        "norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)\nnorms.append(float(norm))\noptimizer.step()",
    ),
    "clipped_values": (
        "",
        "optimizer.zero_grad()\nloss.backward()\nnn.utils.clip_grad_value_(model.parameters(), 0.05)\noptimizer.step()",
    ),
    "norm_by_hand": (
        "",
        "optimizer.zero_grad()\nloss.backward()\ntotal_norm = 0.0\nfor p in model.parameters():\n    if p.grad is not None:\n"
        "        total_norm += p.grad.detach().norm(2).item() ** 2\nnorms.append(total_norm**0.5)\n"
        "scale = min(1.0, 0.5 / (total_norm**0.5 + 1e-6))\nfor p in model.parameters():\n    if p.grad is not None:\n        p.grad.mul_(scale)\noptimizer.step()",
    ),
    "accumulated": (
        "",
        "(loss / 2).backward()\nif (step + 1) % 2 == 0:\n    optimizer.step()\n    optimizer.zero_grad()",
    ),
    "accumulated_rows": (
        "pending = 0\noptimizer.zero_grad()",
        "(loss * len(x)).backward()\npending += len(x)\nif pending >= 2 * BATCH:\n    for p in model.parameters():\n        if p.grad is not None:\n"
        "            p.grad /= pending\n    optimizer.step()\n    optimizer.zero_grad()\n    pending = 0",
    ),
    "scaler": (
        'scaler = torch.amp.GradScaler("cpu", init_scale=256.0)',
        "optimizer.zero_grad()\nscaler.scale(loss).backward()\nscaler.unscale_(optimizer)\n"
        "nn.utils.clip_grad_norm_(model.parameters(), 1.0)\nscaler.step(optimizer)\nscaler.update()",
    ),
    "average": (
        "shadow = copy.deepcopy(model)",
        "optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nwith torch.no_grad():\n"
        "    for slow, fast in zip(shadow.parameters(), model.parameters()):\n        slow.mul_(0.9).add_(fast, alpha=0.1)",
    ),
    "average_dict": (
        "shadow = {k: v.clone() for k, v in model.state_dict().items()}",
        "optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nfor k, v in model.state_dict().items():\n"
        "    if v.is_floating_point():\n        shadow[k].mul_(0.8).add_(v.detach(), alpha=0.2)",
    ),
    "noise": (
        "",
        "optimizer.zero_grad()\nloss.backward()\nfor p in model.parameters():\n    if p.grad is not None:\n        p.grad += 0.01 * torch.randn_like(p)\noptimizer.step()",
    ),
    "two": (
        "extra_optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)",
        "optimizer.zero_grad()\nextra_optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nextra_optimizer.step()",
    ),
    "two_backwards": (
        "",
        "optimizer.zero_grad()\nloss.backward(retain_graph=True)\n(0.1 * out.pow(2).mean()).backward()\noptimizer.step()",
    ),
    "skipped": (
        "",
        "optimizer.zero_grad()\nloss.backward()\nif torch.isfinite(loss) and loss.item() < 50:\n    optimizer.step()",
    ),
    "frozen": (
        "",
        "if epoch == 1 and step == 0:\n    for p in model.head.parameters():\n        p.requires_grad_(False)\n"
        "optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
    ),
    "closure": (
        "",
        "def closure():\n    optimizer.zero_grad()\n    loss.backward()\n    return loss\noptimizer.step(closure)",
    ),
    "scheduled": (
        "scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=60)",
        "optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nscheduler.step()",
    ),
    "warmed": (
        "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 4))",
        "optimizer.zero_grad()\nloss.backward()\noptimizer.step()\nscheduler.step()\nnorms.append(scheduler.get_last_lr()[0])",
    ),
    "sharpness": (
        "",
        "optimizer.zero_grad()\nloss.backward()\nwith torch.no_grad():\n"
        "    size = torch.norm(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]))\n"
        "    moved = []\n    for p in model.parameters():\n        if p.grad is not None:\n            e = 0.05 * p.grad / (size + 1e-6)\n"
        "            p.add_(e)\n            moved.append((p, e))\nfirst_loss = loss.item()\noptimizer.zero_grad()\nFORWARD\nloss.backward()\nwith torch.no_grad():\n"
        "    for p, e in moved:\n        p.sub_(e)\noptimizer.step()",
    ),
    "lbfgs": (
        "optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)",
        "def closure():\n    optimizer.zero_grad()\n    INNER\n    loss.backward()\n    return loss\nloss = optimizer.step(closure).detach()",
    ),
    "pieces": (
        "",
        "def piece(x, y):\n    INNER\n    return loss\noptimizer.zero_grad()\ntotal_loss = 0.0\nfor i in range(0, len(x), 4):\n"
        "    part = piece(x[i : i + 4], y[i : i + 4]) * (len(x[i : i + 4]) / len(x))\n    part.backward()\n    total_loss += part.item()\n"
        "optimizer.step()\nloss = torch.tensor(total_loss)",
    ),
    "gradients": (
        "",
        "weights_now = [p for p in model.parameters() if p.requires_grad]\n"
        "found = torch.autograd.grad(loss, weights_now, allow_unused=True)\nfor p, g in zip(weights_now, found):\n    p.grad = g\noptimizer.step()",
    ),
    "by_hand": (
        "",
        "model.zero_grad()\nloss.backward()\nwith torch.no_grad():\n    for p in model.parameters():\n        if p.grad is not None:\n            p -= 0.05 * p.grad",
    ),
}
CLOSED = {"lbfgs", "pieces"}
"""Steps whose forward runs in a function of its own."""

# What is made at the start of an epoch, what each batch adds, and what is printed behind the epoch.
LOGS = {
    "mean_loss": (
        "total, seen = 0.0, 0",
        "total += loss.item() * len(x)\nseen += x.size(0)",
        'print(f"loss {total / seen:.6f} over {seen}")',
    ),
    "detached": (
        "running = 0",
        "running = running + loss.detach() * y.shape[0]",
        'print("running", (running / len(data)).item())',
    ),
    "every": (
        "",
        'if step % 2 == 0:\n    print(f"[{epoch}/{step}] {loss.item():.6f} ({step * len(x)}/{len(data)})")',
        "",
    ),
    "list": ("losses = []", "losses.append(loss.item())", 'print("mean", np.mean(losses), "std", np.std(losses))'),
    "sizes": ("", "print(tuple(x.shape), len(y), out.shape[0])", ""),
    "numbers": ("amount = torch.zeros(1)", "amount += out.numel() / out[0].numel()", 'print("amount", amount.item())'),
    "spread": ("", 'print("spread", out.std().item(), out.min().item(), out.max().item())', ""),
    "stacked": (
        "kept = []",
        "kept.append(out.detach().cpu())",
        "every = torch.cat(kept)\nprint(every.shape, every.mean().item(), every.flatten()[-1].item())",
    ),
    "arrays": (
        "kept_arrays = []",
        "kept_arrays.append(out.detach().numpy())",
        "every = np.concatenate(kept_arrays, axis=0)\nprint(every.shape, every.std(), every.reshape(len(every), -1)[0, 0])",
    ),
    "first": ("", "if step == 0:\n    print(out.flatten(1)[0, 0].item(), out.flatten(1)[-1, 0].item())", ""),
    "welford": (
        "m, mean, m2 = 0, 0.0, 0.0",
        "for v in out.detach().flatten(1).mean(1).tolist():\n    m += 1\n    gap = v - mean\n    mean += gap / m\n    m2 += gap * (v - mean)",
        'print("welford", m, mean, m2 / max(1, m - 1))',
    ),
    "smoothed": (
        "smooth = None",
        "smooth = loss.item() if smooth is None else 0.9 * smooth + 0.1 * loss.item()",
        'print("smooth", smooth)',
    ),
    "meter": (
        "meter = defaultdict(list)",
        'meter["loss"].append(float(loss))\nmeter["n"].append(x.size(0))',
        'print(json.dumps({"loss": float(np.average(meter["loss"], weights=meter["n"])), "n": sum(meter["n"])}))',
    ),
    "norms": (
        "",
        "",
        'print("norms", [round(float(v), 5) for v in norms[-2:]], sum(p.norm().item() for p in model.parameters()))',
    ),
    "histogram": (
        "",
        "",
        'print("histogram", torch.histc(torch.cat([p.detach().flatten() for p in model.parameters()]), 4, -2.05, 1.95).tolist())',
    ),
    "average": (
        "",
        "print('per row', np.float64(loss.item()) * len(x) / np.sqrt(x.size(0)), np.arange(20)[: len(x)].sum())",
        "",
    ),
    "kept_rows": (
        "row_means = torch.zeros(16)",
        "row_means[: len(out)] += out.detach().flatten(1).mean(1)",
        "print('rows', row_means.tolist())",
    ),
    "grown": (
        "grown = torch.tensor([])",
        "grown = torch.cat([grown, out.detach().flatten(1).mean(1)])",
        "print('grown', len(grown), grown[-1].item(), grown.mean().item())",
    ),
    "worst": ("worst = 0.0", "worst = max(worst, loss.item())", 'print("worst", worst)'),
    "best_row": (
        "",
        "print(out.detach().flatten(1).sum(1).argmax().item(), out.detach().flatten(1).sum(1).topk(2).values.tolist())",
        "",
    ),
    "tensor_meter": (
        "two = torch.zeros(2)",
        "two[0] += loss.detach() * len(x)\ntwo[1] += len(x)",
        'print("meter", (two[0] / two[1]).item(), int(two[1]))',
    ),
}
LOGS_OF = {
    "class": {
        "accuracy": (
            "hits = n = 0",
            "hits += (out.argmax(1) == y).sum().item()\nn += y.size(0)",
            'print(f"accuracy {100 * hits / n:.4f} % ({hits}/{n})")',
        ),
        "accuracy_mean": (
            "accuracies = []",
            "accuracies.append((out.argmax(dim=1) == y).double().mean().item())",
            'print("accuracy", sum(accuracies) / len(accuracies))',
        ),
        "eq": (
            "correct = 0",
            "pred = out.max(1, keepdim=True)[1]\ncorrect += pred.eq(y.view_as(pred)).sum().item()",
            'print("correct", correct)',
        ),
        "bincount": (
            "by_class = torch.zeros(4)",
            "by_class += torch.bincount(out.argmax(1), minlength=4)",
            'print("predicted", by_class.tolist())',
        ),
        "confusion": (
            "confusion = torch.zeros(4, 4, dtype=torch.long)",
            "for t, p in zip(y.view(-1), out.argmax(1).view(-1)):\n    confusion[t.long(), p.long()] += 1",
            "print(confusion.tolist(), (confusion.diag().sum() / confusion.sum()).item())",
        ),
        "confusion_put": (
            "table = torch.zeros(4, 4)",
            "table.index_put_((y, out.argmax(1)), torch.ones(len(y)), accumulate=True)",
            "print(table.tolist())",
        ),
        "confusion_bins": (
            "bins = np.zeros((4, 4))",
            "bins += np.bincount((4 * y + out.argmax(1)).numpy(), minlength=16).reshape(4, 4)",
            "print(bins.tolist())",
        ),
        "lists": (
            "preds, tags = [], []",
            "preds.extend(out.argmax(1).tolist())\ntags += y.tolist()",
            "print(preds, np.mean(np.array(preds) == np.array(tags)))",
        ),
        "counter": ("counter = Counter()", "counter.update(y.tolist())", "print(sorted(counter.items()))"),
        "top2": (
            "top = 0",
            "top += (out.topk(2, dim=1).indices == y[:, None]).any(1).sum().item()",
            'print("top2", top)',
        ),
        "per_class": (
            "rights, of = [0] * 4, [0] * 4",
            "same = (out.argmax(1) == y).squeeze()\nfor i in range(len(y)):\n    rights[y[i].item()] += same[i].item()\n    of[y[i].item()] += 1",
            "print(rights, of)",
        ),
        "by_label": (
            "sums = defaultdict(float)",
            "each = F.cross_entropy(out.detach(), y, reduction='none')\nfor c in y.unique():\n    sums[c.item()] += each[y == c].sum().item()",
            "print({k: round(v, 4) for k, v in sorted(sums.items())})",
        ),
        "confident": (
            "",
            "p = out.detach().softmax(1).max(1).values\nprint(f'{p.mean():.5f} {(p > 0.4).float().mean():.5f} {int((p > 0.3).sum())}')",
            "",
        ),
    },
    "value": {
        "absolute": ("error = 0.0", "error += (out - y).abs().sum().item()", 'print("mae", error / ROWS)'),
        "r2": (
            "said, meant = [], []",
            "said.append(out.detach().squeeze(-1))\nmeant.append(y.squeeze(-1))",
            "said, meant = torch.cat(said), torch.cat(meant)\n"
            'print("r2", (1 - ((said - meant) ** 2).sum() / ((meant - meant.mean()) ** 2).sum()).item())',
        ),
        "corr": (
            "c, d = [], []",
            "c += out.detach().flatten().tolist()\nd += y.flatten().tolist()",
            'print("corr", np.corrcoef(c, d)[0, 1])',
        ),
        "within": (
            "within = n = 0",
            "within += ((out - y).abs() < 0.5).sum().item()\nn += len(out)",
            'print(f"within {within / n:.4f}")',
        ),
    },
    "multi": {
        "exact": (
            "exact = n = 0",
            "exact += ((out > 0) == (y > 0.5)).all(1).sum().item()\nn += y.shape[0]",
            'print("exact", exact / n)',
        ),
        "f1": (
            "tp = fp = fn = 0",
            "p = (out > 0).to(y.dtype)\ntp += (p * y).sum(0)\nfp += (p * (1 - y)).sum(0)\nfn += ((1 - p) * y).sum(0)",
            'print("f1", (2 * tp / (2 * tp + fp + fn + 1e-9)).tolist())',
        ),
    },
    "rebuild": {
        "error": ("error = 0.0", "error += F.mse_loss(out, x, reduction='sum').item()", 'print("error", error / ROWS)'),
        "latent": ("", "print('mu', mu.mean().item(), mu.detach().std(0).tolist())", ""),
    },
    "token": {
        "tokens": (
            "right = n = 0",
            "mask = y != -100\nright += ((out.argmax(-1) == y) & mask).sum().item()\nn += mask.sum().item()",
            'print("tokens", right, n)',
        ),
        "words": ("words = 0", "words += lengths.sum().item()", 'print("words", words)'),
        "perplexity": (
            "nlls, known = 0.0, 0",
            "nlls += loss.item() * (y != -100).sum().item()\nknown += int((y != -100).sum())",
            'print("ppl", math.exp(nlls / known))',
        ),
    },
}
LOGS_OF_INDEX = {
    "table": (
        "",
        "seen_loss[index] = out.detach().flatten(1).mean(1)",
        "print('table', seen_loss.sum().item(), (seen_loss != 0).sum().item())",
    ),
    "moved": (
        "",
        "seen_loss[index] = 0.7 * seen_loss[index] + 0.3 * out.detach().flatten(1).pow(2).sum(1)",
        "print('moved', seen_loss.mean().item(), seen_loss.argmax().item())",
    ),
    "numbers": ("order = []", "order.extend(index.tolist())", "print('order', order)"),
}

# Behind each epoch.
ENDS = {
    "none": "",
    "plateau": "plateau.step(loss.item())\nprint('lr', plateau.optimizer.param_groups[0]['lr'])",
    "best": "if loss.item() < best[0]:\n    best = (loss.item(), copy.deepcopy(model.state_dict()))\nprint('best', best[0])",
    "early": "if loss.item() > best[0] + 5:\n    break\nbest = (loss.item(), None)",
    "saved": "torch.save({'epoch': epoch, 'model': model.state_dict(), 'loss': loss.item()}, f'epoch{epoch}.pt')\nprint(torch.load(f'epoch{epoch}.pt')['loss'])",
    "written": "with open('log.csv', 'a') as f:\n    f.write(f'{epoch},{loss.item():.4f},{len(x)}\\n')\nprint(open('log.csv').read().count(','))",
}
