"""A run that is killed, and started again: the lines of both starts are those of one run that nobody killed."""

import shutil
import textwrap
import time

import pytest
import torch
from one_device import assert_same_weights, plain, same
from runtime_ranks import Run, ended, launch, submitit

from lumi_moai.errors import RequestError
from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel.resume import folder, interval
from lumi_moai.runtime.parallel.resume.journal import Journal

TRAIN = """
    import sys, time, copy
    import lumi_moai, torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    print("starting")
    lumi_moai.enable_advanced_parallelization()
    x = torch.randn(64, 8)
    y = (x.sum(1) > 0).long()
    data = TensorDataset(x, y)
    train, test = DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=16)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    best, count = 1e9, 0
    average = {name: value.clone() for name, value in model.state_dict().items()}
    log = open(sys.argv[1] + ".log", "w")
    for epoch in range(5):
        model.train()
        running = torch.zeros(()).to("cuda")
        for place, (a, b) in enumerate(train):
            a, b = a.to("cuda"), b.to("cuda")
            loss = F.cross_entropy(model(a), b) / 2
            loss.backward()
            running += loss.detach()
            if place % 2 == 1:
                norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                count += 1
                with torch.no_grad():
                    for name, value in model.state_dict().items():
                        average[name].lerp_(value, 0.1)
                print(f"{epoch} {place} loss {loss.item():.6f} norm {norm:.6f} lr {schedule.get_last_lr()[0]:.6f}")
                print(loss.item(), file=log)
            time.sleep(PAUSE)
        model.eval()
        total = right = 0
        with torch.no_grad():
            for a, b in test:
                out = model(a.to("cuda")).cpu()
                total += F.cross_entropy(out, b).item()
                right += int((out.argmax(1) == b)[b == 1].sum()) + (out.argmax(1).numpy() == b.numpy())[0]
        print(f"{epoch} steps {count} running {running.item():.6f} test {total:.6f} right {right}")
        if total < best:
            best = total
            kept = copy.deepcopy(model.state_dict())
            torch.save(kept, sys.argv[1])
            print("best")
    print("average", f"{sum(value.sum().item() for value in average.values()):.6f}")
"""
PAUSE = 0.06


def start(run, text, count, *, job, layout="", checkpoint=0.25, **how):
    description = launch(count)
    Run(run.folder, description, Wishes(layout=Layout.parse(layout), checkpoint=checkpoint, **how))
    name = run.script(text.replace("PAUSE", str(PAUSE)))
    return run.start(submitit(count, job), name, "weights.pt")


def killed_after(run, processes, step):
    """Kill the last rank with -9 some time after a checkpoint of *step* or later is there; what the ranks left."""
    end = time.monotonic() + 90
    while not any(int(path.name[5:]) >= step for path in folder.found(run.folder / "checkpoints")):
        assert time.monotonic() < end and processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    time.sleep(3 * PAUSE)
    processes[-1].kill()
    return ended(processes)


def whole(ranks):
    assert [rank.code for rank in ranks] == [0] * len(ranks), "\n".join(rank.err for rank in ranks)
    return ranks[0]


def assert_one_run(first, second, lines):
    got = first.out.splitlines() + second.out.splitlines()
    assert len(got) == len(lines), f"{first.out}\n---\n{second.out}"
    for mine, expected in zip(got, lines, strict=True):
        same(mine, expected)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """Once as it was, once on half the ranks, once spread over ranks; the last checkpoint is torn in between."""
    text = TRAIN.replace("PAUSE", "0")
    lines, weights = plain(tmp_path, textwrap.dedent(text))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, TRAIN, 2, job="77"), 6)
    assert first[0].code != 0
    assert "first checkpoint at step" in first[0].err
    copies = {}
    for layout, count in (("", 2), ("fsdp", 2), ("", 1)):
        again = Run(tmp_path / f"again{layout}{count}", launch(count))
        shutil.copytree(run.folder, again.folder, dirs_exist_ok=True)
        copies[layout, count] = again
    newest = folder.found(copies["fsdp", 2].folder / "checkpoints")[0]
    (newest / "__0_0.distcp").write_bytes(b"torn")
    for (layout, count), again in copies.items():
        last = whole(ended(start(again, TRAIN, count, job="78", layout=layout)))
        assert "resumed at step" in last.err
        assert ("torn" in last.err) == (layout == "fsdp")
        assert_one_run(first[0], last, lines)
        assert_same_weights(torch.load(again.folder / "weights.pt"), weights)
        assert len((again.folder / "weights.pt.log").read_text().splitlines()) == 20
