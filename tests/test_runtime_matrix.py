"""Nine scripts of different kinds in every layout: the losses and the weights of one device.

The scripts of one layout run one after the other in the same ranks, because starting ranks is what takes the time. A
layout joins by a line in `COUNTS`; what it refuses stands in `REFUSED`, with words of the sentence. The trainers of
`TRAINERS` take longer than the others, so these run on 2 ranks, with uneven batches, only.
"""

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from one_device import plainly_printed, same
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

SCRIPTS = Path(__file__).parent / "scripts"
NAMES = ("mlp", "cnn", "lstm", "gpt", "llama", "encoder_decoder", "gan")
TRAINERS = ("hf_trainer", "lightning_trainer")
BATCHES = {"even": 8, "uneven": 7}
"""Of 16 rows: two batches of 8; or 7, 7 and 2, so that 2 ranks have 4 and 3 rows, and of 4 ranks two have none at last."""
COUNTS = {
    "replicate": (1, 2, 4),
    "fsdp": (1, 2, 4),
    "zero2": (1, 2, 4),
    "micro_batches=2": (1, 2, 4),
    "tp=2": (2, 4),
    "pp=2": (2, 4),
    "hsdp": (4,),
    "tp=2,fsdp": (4,),
}
"""Words of `--layout`, and on how many ranks."""
WITHOUT = ("mlp", "cnn", "lstm", "gan")
"""Scripts without layers that tp could spread, and without blocks."""
REFUSED: dict[tuple[str, str], str] = {
    **{("pp=2", name): "has no blocks that could be 2 pipeline stages" for name in WITHOUT},
    **{("tp=2", name): "has no layers that tp=2 can spread" for name in WITHOUT},
    ("micro_batches=2", "cnn"): "is a BatchNorm2d, which needs all rows at once",
    ("micro_batches=2", "gan"): "is a BatchNorm1d, which needs all rows at once",
}
"""Layout and script, with words of the sentence that refuses them; what `tp=2` refuses, `tp=2,fsdp` does too."""
LIBRARIES = ("transformers.models.llama.modeling_llama", "transformers.trainer", "lightning.pytorch")
"""What the scripts import, which takes a rank seconds; that libraries are noticed when they are imported is tried elsewhere."""
WHOLE = "every rank computes all of it"
"""Said of a batch that was not shared out: a script that computes all on every rank would prove nothing."""
DRIVER = """
import gc, json, sys, lumi_moai
lumi_moai.enable_advanced_parallelization()
scripts, batch_size, folder = json.loads(sys.argv[1]), *sys.argv[2:]
for name, path in scripts.items():
    print("script", name)
    sys.argv = [path, f"{folder}/{name}.pt", batch_size]
    names = {"__name__": "__main__", "__file__": path}
    exec(compile(open(path).read(), path, "exec"), names)
    names.clear()
    gc.collect()
"""

CAUGHT = """
from contextlib import contextmanager
from lumi_moai.errors import RequestError
@contextmanager
def caught(name):
    try:
        yield
    except RequestError as error:
        if name == list(scripts)[-1]:  # the last one ends the run
            raise
        print(f"{name}: {error}")
"""


def of(layout, count, batches):
    """The scripts that run in *layout*."""
    names = [*NAMES, *TRAINERS] if (count, batches) == (2, "uneven") else NAMES
    return [name for name in names if (layout.removesuffix(",fsdp"), name) not in REFUSED]


def words(names, batches, folder):
    """What the driver is called with."""
    return [json.dumps({name: str(SCRIPTS / f"{name}.py") for name in names}), str(BATCHES[batches]), str(folder)]


@pytest.fixture(scope="module")
def plainly(tmp_path_factory):
    """What each script prints under plain python, and what it saves; each kind of batches is run once."""

    @functools.cache
    def run(batches):
        folder = tmp_path_factory.mktemp(batches)
        names = [*NAMES, *TRAINERS] if batches == "uneven" else NAMES
        printed = plainly_printed(folder, DRIVER, *words(names, batches, folder), more=LIBRARIES)
        return by_script(printed), {name: torch.load(folder / f"{name}.pt") for name in names}

    return run


def by_script(text):
    """The lines that each script printed."""
    parts = re.split(r"^script (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.splitlines, parts[2::2]), strict=True))


class Ranks(Run):
    imported = LIBRARIES


def on_ranks(work, names, layout, count, batches):
    run = Ranks(work, launch(count), Wishes(layout=Layout.parse(layout)))
    return run.ranks(submitit(count), run.script(DRIVER), *words(names, batches, work))


def assert_close(mine, theirs, name):
    """Assert that two things that were saved are one, but for rounding."""
    if isinstance(theirs, torch.Tensor):
        assert type(mine) is torch.Tensor
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")
    elif isinstance(theirs, dict):
        assert list(mine) == list(theirs)
        for key in theirs:
            assert_close(mine[key], theirs[key], f"{name}.{key}")
    elif isinstance(theirs, list):
        for place, (each, other) in enumerate(zip(mine, theirs, strict=True)):
            assert_close(each, other, f"{name}.{place}")
    else:
        assert mine == theirs, name


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize(
    ("layout", "count"), [(layout, count) for layout, counts in COUNTS.items() for count in counts]
)
def test_every_script_gives_the_result_of_one_device(work, plainly, layout, count, batches):
    lines, saved = plainly(batches)
    names = of(layout, count, batches)
    ranks = on_ranks(work, names, layout, count, batches)
    assert [rank.code for rank in ranks] == [0] * count, "\n".join(rank.err for rank in ranks)
    assert [rank.out for rank in ranks[1:]] == [""] * (count - 1)
    assert WHOLE not in ranks[0].err
    printed = by_script(ranks[0].out)
    assert list(printed) == names
    for name in names:
        assert len(printed[name]) == len(lines[name])
        for line, expected in zip(printed[name], lines[name], strict=True):
            same(f"{name} {line}", f"{name} {expected}")
        assert_close(torch.load(work / f"{name}.pt"), saved[name], name)


@pytest.mark.parametrize("layout", sorted({layout for layout, _ in REFUSED}))
def test_what_a_layout_cannot_do_is_refused(work, layout):
    first, *others = [name for of, name in REFUSED if of == layout]
    run = Run(work, launch(2), Wishes(layout=Layout.parse(layout)))
    driver = DRIVER.replace("    exec(", "    with caught(name): exec(").replace("import gc", CAUGHT + "import gc")
    ranks = run.ranks(submitit(2), run.script(driver), *words([*others, first], "even", work))
    assert [rank.code for rank in ranks] == [1, 1], "\n".join(rank.err for rank in ranks)
    said = [line for rank in ranks for line in rank.err.splitlines() if REFUSED[layout, first] in line]
    assert len(said) == 1, "\n".join(rank.err for rank in ranks)
    found = dict(line.split(": ", 1) for line in ranks[0].out.splitlines() if ": " in line)
    for name in others:
        assert REFUSED[layout, name] in found[name]
