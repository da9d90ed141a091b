"""What shows a training: tensorboard, torchvision's pictures, Weights & Biases. Rank 0 shows the global batch, once."""

import json
import re

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

HEAD = """
import os, sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lumi_moai
lumi_moai.enable_advanced_parallelization()
torch.manual_seed(1)
x, y = torch.rand(21, 3, 4, 4), torch.randint(0, 5, (21,))
model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""

LOOP = """
step = 0
for epoch in range(2):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
        scores = model(a)
        loss = nn.functional.cross_entropy(scores, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item()}")
        step += 1
        SHOW
torch.save([parameter.detach().clone() for parameter in model.parameters()], sys.argv[1])
"""


def alike(work, head, show, end=""):
    text = HEAD + head + LOOP.replace("SHOW", show) + end
    lines, weights = plain(work, text)
    return same_run(work, text, lines, weights, 2)[0].folder


def test_shapes_are_printed_with_the_rows_of_one_device(work):
    show = (
        "print(a.shape, f'{b.shape} {scores.size()}', a.view(a.size(0), -1).shape, a.shape[:2], a.shape[1:] + b.shape,"
        " 'shape %s, %s, %s, %s' % a.shape, isinstance(a.shape, torch.Size), a.shape == (a.size(0), 3, 4, 4), a.shape.numel(),"
        " torch.zeros_like(a).shape, a.mean(0).shape, len(a.shape), (3, *b.shape))"
    )
    alike(work, "", show)


def test_tensorboards_files_are_those_of_one_device(work):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    show = (
        "writer.add_scalar('loss', loss, step); writer.add_scalar('right', (scores.argmax(1) == b).float().mean(), step);"
        " writer.add_histogram('rows', a, step); writer.add_images('pictures', a, step);"
        " writer.add_histogram('weight', model[1].weight, step)"
    )
    head = "from torch.utils.tensorboard import SummaryWriter\nwriter = SummaryWriter('board')\n"
    folder = alike(work, head, show, "writer.close()\n")

    def shown(place):
        (file,) = (place / "board").iterdir()
        read = reader.EventAccumulator(str(file), size_guidance={"histograms": 0, "images": 0}).Reload()
        pictures = [(each.step, each.width, each.height) for each in read.Images("pictures")]
        counts = [(each.step, each.histogram_value.num) for each in read.Histograms("rows")]
        numbers = [each.value for tag in ("loss", "right") for each in read.Scalars(tag)]
        return pictures, counts, numbers

    mine, expected = shown(folder), shown(work)
    assert mine[:2] == expected[:2]
    assert mine[2] == pytest.approx(expected[2], rel=1e-5)


def test_torchvisions_pictures_show_the_rows_of_all_ranks(work):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    pictures = pytest.importorskip("PIL.Image")
    show = "save_image(a, f'rows{step}.png'); print(tuple(make_grid(a, nrow=4).shape)); save_image(a[:4], f'few{step}.png')"
    folder = alike(work, "from torchvision.utils import make_grid, save_image\n", show)
    names = sorted(path.name for path in work.glob("*.png"))
    assert len(names) == 12
    assert sorted(path.name for path in folder.glob("*.png")) == names
    for name in names:
        mine, expected = (pictures.open(place / name) for place in (folder, work))
        assert (mine.size, mine.tobytes()) == (expected.size, expected.tobytes())


WANDB = """
import wandb
run = wandb.init(project="tiny", config={"rate": 0.1}, mode="offline", settings=wandb.Settings(silent=True))
os.makedirs(os.path.join("kept", run.id))
torch.save(model.state_dict(), os.path.join("kept", run.id, "first.pt"))
print(wandb.config.rate, wandb.run is run, run.dir.count("offline-run"))
SAVE
"""


def test_wandb_has_one_run_with_the_numbers_of_one_device(work):
    pytest.importorskip("wandb")
    show = (
        "wandb.log({'loss': loss, 'number': loss.item(), 'right': (scores.argmax(1) == b).float().mean(),"
        " 'rows': (rows := wandb.Histogram(a.flatten())), 'count': {'rows': len(b)}}, step=step);"
        " print(list(map(int, rows.histogram)))"
    )
    end = "open('summary.json', 'w').write(__import__('json').dumps(dict(run.summary), default=str))\nrun.finish()\n"
    folder = alike(work, WANDB.replace("SAVE", ""), show, end)
    for place in (folder, work):
        assert len(list((place / "wandb").glob("offline-run-*"))) == 1
        (kept,) = (place / "kept").iterdir()
        assert len(list((place / "wandb").glob(f"offline-run-*-{kept.name}"))) == 1
        assert (kept / "first.pt").stat().st_size > 0
    mine, expected = (json.loads((place / "summary.json").read_text()) for place in (folder, work))
    assert mine["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert mine["right"] == pytest.approx(expected["right"], rel=1e-5)


def test_watching_weights_in_parts_is_refused(work):
    pytest.importorskip("wandb")
    script = HEAD + WANDB.replace("SAVE", "wandb.watch(model, log='all')") + LOOP.replace("SHOW", "")
    run = Run(work, launch(2), Wishes(layout=Layout.parse("fsdp")))
    ranks = run.ranks(submitit(2), run.script(script), "weights.pt")
    assert [rank.code for rank in ranks] == [1, 1]
    assert re.search("wandb.watch looks at weights .* or use --layout replicate", ranks[0].err)
