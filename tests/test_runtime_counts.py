"""What a script counts while it trains: rows, right answers, tokens; the numbers are those of one device."""

import copy
import json
import math
import operator
import pickle
import shutil
import statistics
import textwrap
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch._inductor.codecache
from hypothesis import given
from hypothesis import strategies as st
from one_device import plain
from runtime_ranks import Ended, Run, ended, launch, submitit
from test_runtime_resume import assert_one_run, killed_after, start, whole

from lumi_moai.plan import Layout, Wishes
from lumi_moai.runtime.parallel import counts, fetching, loader
from lumi_moai.runtime.parallel.counts import OfAll, OfBatch, Rows, mark, of_all, teach, users
from lumi_moai.runtime.parallel.counts.size import Shape
from lumi_moai.runtime.parallel.share import Share

COUNTS = """
    import sys, time
    import lumi_moai, torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    x = torch.randn(51, 8)
    y = (x.sum(1) > 0).long() + (x[:, 0] > 1).long()
    words = torch.randint(0, 5, (51, 6))
    data = TensorDataset(x, y, words)
    loader = DataLoader(data, batch_size=10, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)


    def accuracy(output, target, topk=(1, 2)):
        # as the ImageNet example does it
        with torch.no_grad():
            batch_size = target.size(0)
            _, pred = output.topk(max(topk), 1, True, True)
            pred = pred.t()
            correct = pred.eq(target.view(1, -1).expand_as(pred))
            return [correct[:k].reshape(-1).float().sum(0, keepdim=True).mul_(100.0 / batch_size) for k in topk]


    class AverageMeter:
        def __init__(self):
            self.sum = self.count = 0

        def update(self, value, n=1):
            self.sum += value * n
            self.count += n
            self.avg = self.sum / self.count


    for epoch in range(2):
        running, total, correct, corrects, seen, skipped = 0.0, 0, 0, 0, 0, 0
        meter, right = AverageMeter(), torch.zeros(5)
        for batch_idx, (inputs, labels, ids) in enumerate(loader):
            if inputs.size(0) < 3:  # a partial batch, of the global size
                skipped += len(inputs)
                continue
            inputs, labels, ids = inputs.to("cuda"), labels.cuda(), ids.to("cuda")
            optimizer.zero_grad()
            outputs = model(inputs)
            B, width = inputs.shape
            loss = F.cross_entropy(outputs.view(B, -1), labels)
            loss.backward()
            optimizer.step()
            _, preds = torch.max(outputs, 1)
            running += loss.item() * inputs.size(0)
            corrects += torch.sum(preds == labels.data)
            total += labels.size(0)
            correct += preds.eq(labels).sum().item()
            mask = ids != 0
            seen += mask.sum().item()
            far = F.mse_loss(outputs, torch.ones_like(outputs), reduction="sum") / len(labels)
            kept = (outputs.argmax(1).unsqueeze(1) == ids)[mask].float().mean()
            meter.update(loss.item(), len(labels))
            top1, top2 = accuracy(outputs, labels)
            for label in range(5):
                of = labels == label
                right[label] += ((preds == label) & of).sum()
            ones = torch.zeros(B, device=inputs.device)
            assert ones.shape[0] == outputs.size(0) == inputs.shape[0]
            mean = (preds == labels).float().mean().item()
            print(f"{epoch} [{batch_idx * len(inputs)}/{len(loader.dataset)}] {loss.item():.6f} {mean:.6f} {kept:.6f} {far.item():.5f}")
            print(top1.item(), top2.item(), f"{B * width}", 100.0 * correct / total, (labels == 1).any().item())
            print("acc: %.3f%% (%d/%d)" % (100.0 * correct / total, correct, int(total)))
            time.sleep(PAUSE)
        print(running / len(data), corrects.double().item() / len(data), total, seen, skipped, f"{meter.avg:.6f}")
        print(right.tolist(), float(correct) / float(total), round(running / total, 5))
    torch.save([labels, total], sys.argv[1])
"""


@pytest.mark.parametrize(("layout", "count"), [("", 2), ("", 3), ("fsdp", 2), ("micro_batches=2", 2)])
def test_counts_are_those_of_one_device(tmp_path, layout, count):
    text = textwrap.dedent(COUNTS.replace("PAUSE", "0"))
    lines, (labels, total) = plain(tmp_path, text)
    run = Run(tmp_path / "run", launch(count), Wishes(layout=Layout.parse(layout)))
    rank = whole(ended(run.start(submitit(count), run.script(text), "saved.pt")))
    assert_one_run(rank, Ended(0, "", ""), lines)
    mine, counted = torch.load(run.folder / "saved.pt")
    assert (type(mine), counted) == (torch.Tensor, total)
    assert len(labels) >= len(mine)


def test_counts_go_on_after_a_restart_on_as_many_ranks_and_on_fewer(tmp_path):
    lines, _ = plain(tmp_path, textwrap.dedent(COUNTS.replace("PAUSE", "0")))
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, COUNTS, 2), 4)
    fewer = Run(tmp_path / "fewer", launch(1))
    shutil.copytree(run.folder, fewer.folder, dirs_exist_ok=True)
    for place, count in ((run, 2), (fewer, 1)):
        assert_one_run(first[0], whole(ended(start(place, COUNTS, count, job="78"))), lines)


def test_rows_are_a_size_and_a_number():
    teach()
    rows = Rows.of(4, 10)
    assert [*range(rows)] == [0, 1, 2, 3]
    assert [*range(20)][rows] == 10
    assert [*range(20)][-rows:] == [*range(10, 20)]
    assert f"{rows} {rows:3d} {rows!r} {rows * 2} {2 * rows + 1} {rows // 2}" == "10  10 10 20 21 5"
    assert list(range(rows * 3 // 4)) == [0, 1, 2]
    assert "%d %s %.1f" % (rows, rows, rows / 4) == "10 10 2.5"  # noqa: UP031
    assert json.dumps({"rows": rows}) == '{"rows": 10}'
    assert type(3 + rows) is int
    assert torch.zeros(rows, 2).shape == (4, 2)
    assert torch.arange(rows).tolist() == [0, 1, 2, 3]
    assert (torch.ones(3) * rows).tolist() == [10.0] * 3
    assert (0.5 * rows, rows * 0.5, 30 / rows, rows / 4, 1.5 + rows, float(rows)) == (5.0, 5.0, 3.0, 2.5, 11.5, 10.0)
    assert rows == 10
    assert rows != 4, "a script's own number that is equal to a rank's rows by chance"
    assert operator.eq(rows, 4) is False
    assert {10: "whole"}[rows] == "whole"
    assert isinstance(rows, int)
    assert rows > 9
    assert not rows < 10
    assert rows == Rows.of(5, 10)
    assert sum([rows, rows]) == 20
    assert max(rows, 7) == 10


@pytest.mark.parametrize("kind", [int, float, complex, np.int32, np.int64, np.float32, np.float64, np.asarray])
@pytest.mark.parametrize("name", "add sub mul truediv floordiv mod pow eq ne lt le gt ge".split())
def test_rows_are_all_ranks_rows_for_every_kind_of_number(name, kind):
    work, other = getattr(operator, name), kind(3)
    if kind is complex and name in ("floordiv", "mod", "lt", "le", "gt", "ge"):
        return
    for first, second, wanted in ((Rows.of(4, 10), other, work(10, other)), (other, Rows.of(4, 10), work(other, 10))):
        assert float(work(first, second).real) == float(wanted.real)


@pytest.mark.parametrize("name", "neg pos abs invert".split())
def test_rows_alone_are_both(name):
    found = getattr(operator, name)(Rows.of(4, 10))
    assert (operator.index(found), found.whole) == (getattr(operator, name)(4), getattr(operator, name)(10))


def test_libraries_of_numbers_take_all_ranks_rows():
    rows = Rows.of(4, 10)
    assert (statistics.mean([rows, 3]), statistics.mean([rows, 4])) == (6.5, 7)
    assert (Fraction(3, rows), math.sqrt(rows)) == (Fraction(3, 10), math.sqrt(10))
    assert (divmod(rows, 3), divmod(23, rows)) == ((3, 1), (2, 3))
    assert (np.average([1.0, 2.0], weights=[rows, 30]), np.log(rows)) == (1.75, np.log(10))
    assert (rows & 6, rows | 1, rows ^ 2, rows << 1, rows >> 1) == (2, 11, 8, 20, 5)


def test_what_is_added_to_in_place_stays_what_it_was():
    rows = torch.ones(4)
    mark(rows, Share(rows=4, total=8, ranks=2))
    kept = torch.zeros(4)
    kept += rows
    kept.add_(rows)
    assert type(kept) is torch.Tensor
    assert type(rows + 1) is OfBatch


def test_one_of_several_numbers_of_all_ranks_counts_all_rows():
    correct = of_all(torch.ones(1, 1))  # as ImageNet's accuracy keeps it
    correct.mul_(6.25)
    assert float(correct.view(-1)[0] * Rows.of(4, 10)) == 62.5
    assert f"{correct.view(-1)[0]:6.2f}" == "  6.25"


def test_a_copy_is_what_it_is_a_copy_of():
    rows = torch.ones(4, 2)
    mark(rows, Share(rows=4, total=10, ranks=2))
    leaf = torch.ones(4, requires_grad=True)
    mark(leaf, Share(rows=4, total=10, ranks=2))
    kept = copy.deepcopy({"rows": rows, "again": rows, "leaf": leaf, "best": of_all(torch.ones(()))})
    assert [type(each) for each in kept.values()] == [OfBatch, OfBatch, OfBatch, OfAll]
    assert kept["rows"] is kept["again"] is not rows
    assert f"{kept['rows'].size(0)}" == "10"
    assert kept["leaf"].requires_grad
    assert kept["leaf"].is_leaf
    assert type(rows) is OfBatch


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_dataset_reads_is_no_count(workers):
    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return fetching.is_fetching()

    data = torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=workers)
    fetched = next(loader.Batches(lambda: iter(data), lambda batch: (batch, None), lambda share, batch: batch))
    assert fetched.tolist() == [True, True]
    assert not fetching.is_fetching()


def test_code_that_the_compiler_wrote_is_not_the_users():
    kept = torch._inductor.codecache.PyCodeCache
    name, path = kept.write("def step(): pass")
    made = kept.load_by_key_path(name, path)
    assert users.is_users(made.__file__, "train")
    assert not users.is_users(made.__file__, made.step.__globals__["__name__"])


def test_rows_are_added_to_a_single_number_as_those_of_all_ranks():
    teach()
    one, rows, several = torch.zeros(1), Rows.of(4, 10), torch.zeros(2)
    one += rows
    one.add_(rows).add_(torch.ones(1), alpha=2)
    assert one.item() == 22
    assert several.add_(rows).tolist() == [4.0, 4.0]
    assert [part.shape[0] for part in torch.zeros(8).split(rows)] == [4, 4]


@given(st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 9), max_size=3), st.integers(-5, 5))
def test_a_shape_does_what_torchs_does(sizes, more, place):
    mine, wanted = Shape(sizes), torch.Size(sizes)
    assert (mine, repr(mine), f"{mine}", hash(mine)) == (wanted, repr(wanted), str(wanted), hash(wanted))
    assert isinstance(mine, torch.Size)
    assert repr(mine[place:]) == repr(wanted[place:])
    assert repr(mine + tuple(more)) == repr(wanted + torch.Size(more))
    assert repr(tuple(more) + mine) == repr(torch.Size(more) + wanted)
    assert mine.numel() == wanted.numel()
    assert torch.zeros(mine).shape == torch.zeros(wanted).shape
    assert torch.zeros(wanted.numel()).view(mine).shape == wanted
    assert repr(copy.deepcopy(mine)) == repr(pickle.loads(pickle.dumps(mine))) == repr(wanted)


def test_a_shape_with_rows_is_printed_as_the_global_batchs():
    shape = Shape([Rows.of(4, 10), 3])
    assert (
        f"{shape} {shape[:1]} {shape + torch.Size([2])}"
        == "torch.Size([10, 3]) torch.Size([10]) torch.Size([10, 3, 2])"
    )
    assert torch.zeros(shape).tolist() == [[0.0] * 3] * 4
    assert pickle.loads(pickle.dumps(shape)) == torch.Size([10, 3])


def test_the_length_of_a_list_is_a_number_of_rows_where_it_has_one_entry_for_each():
    share = Share(total=5, ranks=2, rows=2)
    names, boxes, fields = ["a", "b"], ({"n": 1}, {"n": 2}), [torch.zeros(2, 3), ("x", "y")]
    mark({"names": names, "others": [boxes, "abc", fields]}, share)
    lengths = [counts.length(each) for each in (names, boxes, fields[1])]
    assert [type(each) for each in lengths] == [Rows] * 3
    assert [0 + each for each in lengths] == [5] * 3
    assert [0 + counts.length(each) for each in (fields, ["a", "b"], "ab")] == [2] * 3


BEHIND = """
    import time
    import lumi_moai, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    torch.manual_seed(0)
    lumi_moai.enable_advanced_parallelization()
    x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(5):
        seen = [0] * 7
        right = 0
        for a, b in DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True):
            out = model(a)
            loss = nn.functional.cross_entropy(out, b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pred = out.argmax(1)
            for i, n in enumerate([len(out), out.size(0), out.shape[0], len(b), pred.numel(), (pred == b).sum().item()]):
                seen[i] += n
            time.sleep(PAUSE)
        print(f"{epoch} loss {loss.item():.6f} {seen} {out.mean().item():.5f} {out.shape}")
    torch.save(model.state_dict(), "weights.pt")
"""


@pytest.mark.parametrize("step", [3, 5])
def test_results_of_repeated_steps_are_counted_over_all_ranks(tmp_path, step):
    """Sizes of what the model had computed were a rank's, in each step that a restart repeats and behind the last one."""
    text = textwrap.dedent(BEHIND)
    lines = whole(ended(start(Run(tmp_path / "whole", launch(1)), text, 1, checkpoint="off"))).out.splitlines()
    run = Run(tmp_path / "run", launch(2))
    first = killed_after(run, start(run, text, 2), step)
    assert_one_run(first[0], whole(ended(start(run, text, 2, job="78"))), lines)
