"""A run that is killed, and started again: the lines of both starts are those of one run that nobody killed."""

import shutil
import signal
import textwrap
import time

import pytest
import torch
from one_device import assert_same_weights, plain, same
from runtime_ranks import Run, ended, launch, submitit

from lumi_moai.errors import RequestError
from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.meeting import Meeting
from lumi_moai.runtime.parallel.resume import files, folder, interval
from lumi_moai.runtime.parallel.resume.ghosts import Ghosts, set_value
from lumi_moai.runtime.parallel.resume.imagine import Imagination
from lumi_moai.runtime.parallel.resume.journal import Journal

TRAIN = """
    import sys, time
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
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            torch.save(kept, sys.argv[1])
            print("best")
    print("average", f"{sum(value.sum().item() for value in average.values()):.6f}")
"""
PAUSE = 0.06


def start(run, text, count, *, job="77", layout="", checkpoint=0.25, keep=2, words=("weights.pt",), **env):
    description = launch(count)
    Run(run.folder, description, Wishes(layout=Layout.parse(layout), checkpoint=checkpoint, keep=keep))
    name = run.script(text.replace("PAUSE", str(PAUSE)))
    return run.start([{**each, **env} for each in submitit(count, job)], name, *words)


def killed_after(run, processes, step):
    """Kill the last rank with -9 some time after a checkpoint of *step* or later is there; what the ranks left."""
    end = time.monotonic() + 90
    while not any(int(path.name[5:]) >= step for path in folder.found(run.folder / "checkpoints")):
        assert time.monotonic() < end
        assert processes[0].poll() is None, processes[0].communicate()
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
        if layout != "fsdp":
            assert_same_weights(torch.load(again.folder / "weights.pt"), weights)
        assert len((again.folder / "weights.pt.log").read_text().splitlines()) == 20


def test_a_run_goes_on_in_another_layout(tmp_path):
    """From products that are spread over two ranks to weights that are."""
    few = "nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))"
    blocks = (
        "nn.Sequential(*(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in 'ab'), nn.Linear(8, 2))"
    )
    script = TRAIN.replace(few, blocks).replace("range(5)", "range(3)")
    lines, weights = plain(tmp_path, textwrap.dedent(script.replace("PAUSE", "0")))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, script, 2, layout="tp=2"), 2)
    last = whole(ended(start(run, script, 2, job="78", layout="fsdp")))
    assert "resumed at step" in last.err
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


GAN = """
    import os, time
    import lumi_moai, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    data = DataLoader(TensorDataset(torch.randn(48, 4)), batch_size=8, shuffle=True)
    judge = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).to("cuda")
    maker = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 4)).to("cuda")
    of_judge = torch.optim.Adam(judge.parameters(), lr=1e-2)
    of_maker = torch.optim.SGD(maker.parameters(), lr=1e-1, momentum=0.9)
    noise = torch.randn(48, 3, generator=torch.Generator().manual_seed(1))
    for epoch in range(4):
        for number, (real,) in enumerate(data):
            real = real.to("cuda")
            some = torch.full((len(real), 3), float(noise[number].sum())).to("cuda")
            made = maker(some)
            right, wrong = torch.ones(len(real), 1).to("cuda"), torch.zeros(len(real), 1).to("cuda")
            score = nn.functional.binary_cross_entropy_with_logits
            loss = score(judge(real), right) + score(judge(made.detach()), wrong)
            of_judge.zero_grad()
            loss.backward()
            of_judge.step()
            fooled = score(judge(made), right)
            of_maker.zero_grad()
            fooled.backward()
            of_maker.step()
            print(f"{epoch} {number} {loss.item():.6f} {fooled.item():.6f}", flush=True)
            time.sleep(PAUSE)
"""


def test_ranks_that_hear_of_the_time_limit_save_and_ask_for_more(tmp_path):
    """Two optimizers and two models; the signal reaches one rank only."""
    lines, _ = plain(tmp_path, textwrap.dedent(GAN.replace("PAUSE", "0")) + "import sys; torch.save([], sys.argv[1])")
    run = Run(tmp_path / "run", launch(2))
    slurm = {"LUMI_MOAI_REQUEUE": "1", "SLURM_JOB_ID": "5"}
    processes = start(run, GAN, 2, checkpoint="auto", **slurm)
    while not processes[0].stdout.readline().startswith("1 2"):
        assert processes[0].poll() is None, processes[0].communicate()
    processes[1].send_signal(signal.SIGUSR2)
    first = ended(processes)
    assert [rank.code for rank in first] == [75, 75], first[0].err
    assert "because the time limit is near" in first[0].err
    assert (run.folder / "checkpoints/requeue-5").read_text() == "0\n"
    last = whole(ended(start(run, GAN, 2, job="78", checkpoint="auto", **slurm, SLURM_RESTART_COUNT="1")))
    rest = (first[0].out + last.out).splitlines()
    for mine, expected in zip(rest, lines[9:], strict=True):
        same(mine, expected)


def test_no_checkpoint_lies_between_the_steps_of_one_batch(tmp_path):
    """The judge has stepped and the maker has not: what the maker made could not be gone back through after a restart."""
    for more, rest in (("", 0), ("if epoch == number == 0: of_maker.step()", 1)):
        run = Run(tmp_path / f"run{rest}", launch(2))
        script = GAN.replace("score =", f"{more}\n            score =").replace("range(4)", "range(12)")
        ended(start(run, script, 2, checkpoint=0.01, keep=100))
        steps = [int(path.name[5:]) for path in folder.found(run.folder / "checkpoints")]
        assert len(steps) > 3
        assert all(step % 2 == rest for step in steps), steps


def test_a_graph_that_is_kept_for_good_does_not_hold_checkpoints_back(tmp_path):
    script = GAN.replace("made = maker(some)", "made = maker(some); kept = globals().setdefault('kept', maker(some))")
    run = Run(tmp_path / "run", launch(1))
    ended(start(run, script, 1, checkpoint=0.01, keep=100))
    assert folder.found(run.folder / "checkpoints")


def test_a_backward_into_what_is_not_computed_again_is_refused():
    """A checkpoint may yet lie within a batch; to go on from it without these gradients would be silently wrong."""
    model = torch.nn.Linear(3, 3)
    ghosts = Ghosts()
    imagination = Imagination(ghosts)
    imagination.sketch(model)
    made = imagination.call(model, (torch.ones(2, 3),), {})
    ghosts.is_over = True
    set_value(made, torch.ones(2, 3))
    with pytest.raises(RequestError, match="a restart does not compute again"):
        (made * torch.ones(3, requires_grad=True)).sum().backward()


PLAIN = """
    import os, sys, time
    import lumi_moai, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    order = torch.Generator()
    order.manual_seed(int(os.environ.get("ORDER", "0")))
    data = TensorDataset(torch.randn(400, 4))
    loader = DataLoader(data, batch_size=4, sampler=torch.randperm(len(data), generator=order).tolist())
    model = nn.Linear(4, int(os.environ.get("WIDTH", "2"))).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for number, (x,) in enumerate(loader):
        out = model(x.to("cuda"))
        if "EARLY" in os.environ:  # a tensor of them may go into the loss: they are this rank's
            rows = torch.tensor(out.detach().tolist())
        if "KEPT" in os.environ:  # of all ranks, and so is what the script reads behind backward
            rows = out.detach().tolist()
        (out**2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        rows = out.detach().tolist()
        time.sleep(PAUSE)
        if number == int(os.environ.get("LAST", "-1")):
            break
"""


def test_what_cannot_go_on_is_refused(tmp_path):
    run = Run(tmp_path / "run", launch(2))
    killed_after(run, start(run, PLAIN, 2), 4)
    saved = run.folder / "checkpoints"
    newest = folder.found(saved)[0]
    cases = [
        ({"WIDTH": "3"}, 2, f"{newest} is of another model (0.bias is [2] there and [3] here)"),
        ({"ORDER": "1"}, 2, "a DataLoader gave another batch after step 0"),
        ({"LAST": "1"}, 2, "the script ended after 2 steps, and its checkpoint is of step"),
        ({"words": ("other.pt",)}, 1, "was made by another script, or by this one with other arguments"),
    ]
    for number, (change, count, words) in enumerate(cases):
        ranks = ended(start(run, PLAIN, count, job=f"8{number}", **change))
        assert [rank.code for rank in ranks] == [1] * count
        assert words in "".join(rank.err for rank in ranks)
    newest.chmod(0o770)
    with pytest.raises(RequestError, match="can be written by others"):
        folder.newest(saved)
    early = Run(tmp_path / "early", launch(2))
    killed_after(early, start(early, PLAIN, 2, EARLY="1"), 4)
    (rank,) = ended(start(early, PLAIN, 1, job="90", EARLY="1"))
    assert rank.code == 1
    assert "reads [4, 2] numbers of the model with .tolist(), of which [2, 2] kept" in rank.err


def test_rows_that_are_kept_ahead_of_backward_are_read_again_on_other_ranks(tmp_path):
    run = Run(tmp_path / "run", launch(2))
    killed_after(run, start(run, PLAIN, 2, KEPT="1"), 4)
    (rank,) = ended(start(run, PLAIN, 1, job="90", KEPT="1", LAST="20"))
    assert rank.code == 0, rank.err


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    for step in (1, 2):
        path = folder.make(tmp_path / "checkpoints", step)
        (path / "facts.json").write_text("{}")
        folder.complete(path, keep=2)
    folder.make(tmp_path / "checkpoints", 3)
    assert folder.newest(tmp_path / "checkpoints")[0].name == "step-2"
    (tmp_path / "checkpoints/step-2/facts.json").unlink()
    path, (remark,) = folder.newest(tmp_path / "checkpoints")
    assert path.name == "step-1"
    assert "step-2 is torn" in remark


def test_the_journal_gives_back_what_was_read():
    journal = Journal()
    journal.note("item", "a.py:1", "f:", (0.1,))
    journal.note("item", "a.py:2", "i:", (7,))
    journal.note("loop", "", "t:", ("x", "y", "x"))
    journal.note("__bool__", "a.py:3", "b:", (True,))
    again = Journal.load(journal.dump())
    values = [again.take(*event).values for event in (("item", "a.py:1"), ("item", "a.py:2"), ("loop", ""))]
    assert [list(each) for each in values] == [[0.1], [7], ["x", "y", "x"]]
    with pytest.raises(RequestError, match="does not repeat what it did before"):
        again.take("item", "a.py:9")


@pytest.mark.parametrize("stall", [0.001, 0.1, 1.0, 30.0, 600.0])
def test_training_waits_for_checkpoints_under_two_percent_of_the_time(stall):
    seconds = interval.seconds_between("auto", stall, written=4 * stall)
    assert stall / seconds <= 0.02
    assert seconds >= 60
    assert interval.seconds_between(5.0, stall, None) == 5.0


OWN = """
    import os, time
    import lumi_moai, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    loader = DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4)
    model = nn.Linear(4, 2).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    first = 0
    if os.path.exists("own.pt"):
        kept = torch.load("own.pt")
        first = kept["epoch"] + 1
        model.load_state_dict(kept["model"])
        print("from epoch", first)
    for epoch in range(first, 16):
        for (x,) in loader:
            loss = (model(x.to("cuda")) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            time.sleep(PAUSE)
        print(epoch, f"{loss.item():.6f}")
        torch.save({"epoch": epoch, "model": model.state_dict()}, "own.pt")
    raise SystemExit(0)
"""


def test_a_script_that_resumes_itself_does_so(tmp_path):
    run = Run(tmp_path / "run", launch(1))
    first = killed_after(run, start(run, OWN, 1), 4)
    last = whole(ended(start(run, OWN, 1, job="78")))
    assert "the script goes on from its own file" in last.err
    epochs, later = (
        [line.split()[0] for line in each.splitlines() if "from" not in line] for each in (first[0].out, last.out)
    )
    if epochs[-1:] == later[:1]:  # killed behind its line, ahead of its file
        epochs.pop()
    assert epochs + later == [str(epoch) for epoch in range(16)]
    assert "from epoch" in last.out


HABITS = """
    import sys, time
    import lumi_moai, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    loader = DataLoader(TensorDataset(torch.randn(48, 4), torch.randn(48, 1)), batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0, growth_interval=3)


    class Meter:
        def __init__(self):
            self.total, self.losses = 0, []


    def train(epoch, meter):
        for number, (x, y) in enumerate(loader):
            loss = nn.functional.mse_loss(model(x.to("cuda")), y.to("cuda"))
            scaled = scaler.scale(loss)
            scaled.backward()
            if number == 2:  # an overflow, which the scaler leaves out
                model[0].weight.grad.fill_(float("inf"))
            scaler.unscale_(optimizer)
            norm = sum(p.grad.norm().item() ** 2 for p in model.parameters()) ** 0.5
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=False)
            meter.losses.append(loss.detach())
            meter.total = meter.total + loss.detach() * len(y)
            if loss < 0.8:
                print("small")
            print(f"{epoch} {number} {loss:.6f} {norm if number != 2 else 0.0:.6f} {before} {scaler.get_scale()}")
            time.sleep(PAUSE)
        return torch.stack(meter.losses).mean()


    for epoch in range(5):
        meter = Meter()
        mean = train(epoch, meter)
        schedule.step(mean)
        print(epoch, float(mean), f"{len(meter.losses)}", schedule.get_last_lr()[0], int(mean > 1))
    torch.save(model.state_dict(), sys.argv[1])
"""


def test_habits_of_scripts_are_repeated(tmp_path):
    """A GradScaler that leaves steps out, norms by hand, sums in an object, a schedule that watches the loss."""
    lines, weights = plain(
        tmp_path, textwrap.dedent(HABITS.replace("PAUSE", "0").replace('Scaler("cuda"', 'Scaler("cpu"'))
    )
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, HABITS, 2), 3)
    last = whole(ended(start(run, HABITS, 2, job="78")))
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


PADDED = """
    import time
    import lumi_moai, torch
    import torch.nn.functional as F
    from torch import nn
    from torch.nn.utils.rnn import pad_sequence
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    texts = [torch.randint(1, 9, (2 + place % 4,)) for place in range(64)]
    def collate(rows):
        longest = max(row.ne(0).sum().item() for row in rows)
        return pad_sequence(rows, batch_first=True)[:, :longest]
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9)).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(5):
        for rows in DataLoader(texts, batch_size=8, collate_fn=collate):
            loss = F.cross_entropy(model(rows[:, :-1]).transpose(1, 2), rows[:, 1:], ignore_index=0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"{epoch} loss {loss.item():.6f}")
            time.sleep(PAUSE)
    torch.save(model.state_dict(), "weights.pt")
"""


def test_rows_that_the_self_check_fetched_again_are_not_waited_for(tmp_path):
    """What a collate function reads for the check is no part of the journal."""
    lines = whole(ended(start(Run(tmp_path / "whole", launch(2)), PADDED, 2, checkpoint="off"))).out.splitlines()
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, PADDED, 2), 3)
    assert "self-check of the first step: loss" in first[0].err
    last = whole(ended(start(run, PADDED, 2, job="78")))
    assert_one_run(first[0], last, lines)


def test_batches_that_ranks_fill_up_to_lengths_of_their_own_are_kept(tmp_path):
    """A checkpoint puts the rows of all ranks together that the script still holds: it stopped at their sizes."""
    text = PADDED.replace("place % 4", "place % 5").replace("collate_fn=collate", "shuffle=True, collate_fn=collate")
    lines = whole(ended(start(Run(tmp_path / "whole", launch(2)), text, 2, checkpoint="off"))).out.splitlines()
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, text, 2), 3)
    assert_one_run(first[0], whole(ended(start(run, text, 2, job="78"))), lines)


READS_PADDING = (("lr=1e-2", "lr=1e-2, weight_decay=0.1"), ("ignore_index=0", "label_smoothing=0.1"))


AHEAD = (
    ("import time", "import time\n    from accelerate import Accelerator"),
    ("    for epoch", "    accelerator = Accelerator(cpu=True)\n    MADE\n    for epoch"),
    ("MADE", "model, optimizer, loader = accelerator.prepare(model, optimizer, LOADER)"),
    ("rows in DataLoader(texts, batch_size=8, shuffle=True, collate_fn=collate)", "rows in loader"),
    ("LOADER", "DataLoader(texts, batch_size=8, shuffle=True, collate_fn=collate)"),
    ("loss.backward()", "accelerator.backward(loss)"),
)
"""With batches that a library has fetched ahead."""


UNLIKE = ("pad_sequence(rows,", "pad_sequence([row.roll(longest) for row in rows],")
"""What is filled in is not all that is unlike in a batch of all rows."""


@pytest.mark.parametrize("is_whole", [False, True], ids=["filled", "whole"])
@pytest.mark.parametrize("library", [(), AHEAD], ids=["none", "accelerate"])
def test_a_killed_run_with_the_padding_of_one_device_goes_on(tmp_path, library, is_whole):
    """Its collate function reads more numbers for whole batches, so the next start fetches whole ones at once."""
    text = PADDED.replace("place % 4", "place % 5").replace("collate_fn=collate", "shuffle=True, collate_fn=collate")
    for old, new in (*READS_PADDING, *library, *[UNLIKE] * is_whole):
        assert old in text
        text = text.replace(old, new)
    lines = whole(ended(start(Run(tmp_path / "whole", launch(1)), text, 1, checkpoint="off"))).out.splitlines()
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, text, 2), 3)
    assert ("each rank puts whole batches together" in first[0].err) == is_whole
    assert_one_run(first[0], whole(ended(start(run, text, 2, job="78"))), lines)


MIXED = """
    import time
    import lumi_moai, torch
    from torch import nn
    from torch.utils.data import DataLoader, default_collate

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    rows = list(torch.randn(64, 8))
    def mix(rows):
        rows = default_collate(rows)
        return torch.lerp(rows, rows[torch.randperm(len(rows))], torch.rand(()))
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(5):
        for mixed in DataLoader(rows, batch_size=9, shuffle=True, collate_fn=mix):
            loss = model(mixed).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"{epoch} loss {loss.item():.6f}")
            time.sleep(PAUSE)
    torch.save(model.state_dict(), "weights.pt")
"""


def test_a_killed_run_goes_on_with_the_mixtures_of_one_device(tmp_path):
    """Its collate function mixes the rows of whole batches, with random numbers that all ranks share."""
    lines = whole(ended(start(Run(tmp_path / "whole", launch(1)), MIXED, 1, checkpoint="off"))).out.splitlines()
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, MIXED, 2), 3)
    assert "a collate function makes rows out of several samples" in first[0].err
    assert_one_run(first[0], whole(ended(start(run, MIXED, 2, job="78"))), lines)


OF_ITS_OWN = """
    import time
    import lumi_moai, torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    train = DataLoader(TensorDataset(torch.randn(64, 8)), batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(5):
        for (rows,) in train:
            loss = F.mse_loss(model(rows), rows[:, :2])
            for weight, grad in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):
                weight.grad = grad
            optimizer.step()
            print(f"{epoch} loss {loss.item():.6f}")
            time.sleep(PAUSE)
    torch.save(model.state_dict(), "weights.pt")
"""


def test_a_killed_run_that_takes_its_gradients_itself_goes_on(tmp_path):
    lines, weights = plain(tmp_path, textwrap.dedent(OF_ITS_OWN.replace("PAUSE", "0").replace('"weights', '"plain')))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, OF_ITS_OWN, 2, words=()), 10)
    last = whole(ended(start(run, OF_ITS_OWN, 2, job="78", words=())))
    assert "resumed at step" in last.err
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


# Rows that the model has computed, one by one, ahead of backward and behind it; torch reads numbers of them as places.
ONE_BY_ONE = """
    import sys, time
    import lumi_moai, torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    data = TensorDataset(torch.randn(30, 6), torch.randint(0, 5, (30,)), torch.arange(30))
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ahead, behind, hits, scores, of = torch.zeros(5, 5), torch.zeros(5, 5), 0, [], {}
    for epoch in range(10):
        for x, y, index in DataLoader(data, 7, shuffle=True):
            out = model(x)
            loss, p = F.cross_entropy(out, y), out.argmax(1)
            for q, t in zip(p, y):
                ahead[t, q] += 1
            for i in range(len(y)):
                if p[i] == y[i]: hits += 1
            for n, o in zip(index, out.softmax(1)): of[n.item()] = o.max().item()
            scores += [round(loss.item(), 6)] * len(y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for q, t in zip(p, y):
                behind[t, q] += 1
            for i in range(len(y)): hits += p[i].item() * i
            print(f"{loss.item():.6f}", hits, ahead.tolist(), behind.tolist(), sum(of.values()), len(scores), sum(scores))
            time.sleep(PAUSE)
    torch.save(model.state_dict(), sys.argv[1])
"""


def test_a_killed_run_that_goes_through_its_rows_one_by_one_goes_on(tmp_path):
    lines, weights = plain(tmp_path, textwrap.dedent(ONE_BY_ONE.replace("PAUSE", "0")))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, ONE_BY_ONE, 2), 8)
    last = whole(ended(start(run, ONE_BY_ONE, 3, job="78")))
    assert "resumed at step" in last.err
    assert_one_run(first[0], last, lines)
    assert_same_weights(torch.load(run.folder / "weights.pt"), weights)


# One model after another, as in a cross-validation: of other widths, and selected by a mask of the data.
FOLDS = """
    import sys, time
    import lumi_moai, torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    x = torch.randn(40, 8)
    y = (x.sum(1) > 0).long()
    sums = []
    for fold in range(3):
        model = nn.Sequential(nn.Linear(8, 6 + fold), nn.Tanh(), nn.Linear(6 + fold, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for epoch in range(2):
            for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
                each = F.cross_entropy(model(a), b, reduction="none")
                mask = a[:, 0] > -1
                loss = each[mask].mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                print(f"{fold} {epoch} loss {loss.item():.6f}")
                time.sleep(PAUSE)
        sums.append(sum(weight.sum().item() for weight in model.parameters()))
    print("sums", *[f"{each:.5f}" for each in sums])
"""


def test_a_killed_run_of_one_model_after_another_goes_on(tmp_path):
    lines = whole(ended(start(Run(tmp_path / "whole", launch(2)), FOLDS, 2, checkpoint="off"))).out.splitlines()
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, FOLDS, 2), 22)[0]
    second = whole(ended(start(run, FOLDS, 2, job="78")))
    assert "resumed at step" in second.err
    assert_one_run(first, second, lines)


def test_a_rank_that_ends_while_steps_are_repeated_says_so(tmp_path):
    """Its note was left beside its place, since the script moves no files then; it was called killed, with no reason."""
    undo = files.guard(lambda: False)
    try:
        Meeting(tmp_path).post("ended-1", 1)
        (tmp_path / "script's").write_text("")
        (tmp_path / "script's").replace(tmp_path / "moved")
    finally:
        undo()
    assert Meeting(tmp_path).read("ended-1") == 1
    assert not (tmp_path / "moved").exists()
