"""One script for one device, under plain `python` and on several ranks: the same lines, the same weights.

The reference is the script under plain `python`, where the one line does nothing. A script saves what it trained, as a
list of tensors or a state dict, with `torch.save(..., sys.argv[1])`.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from runtime_ranks import Run, ended, launch, submitit
from warm_python import Warm

from lumi_moai.plan import Layout, Wishes

NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def plainly_printed(work, text, *words, more=()):
    """What *text* prints under plain `python` that has imported *more*, called with *words* in the folder *work*."""
    (work / "plain.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}  # also where a fixture comes before the world
    (done,) = ended([Warm(["plain.py", *words], cwd=work, env=env, more=more)])
    assert done.code == 0, done.err
    return done.out


def plain(work, text):
    """What *text* prints and saves under plain `python`: its lines, and what it saved."""
    # A GPU's name needs the runtime where there is no GPU.
    printed = plainly_printed(work, text.replace('.to("cuda")', "").replace(".cuda()", ""), work / "plain.pt")
    return printed.splitlines(), torch.load(work / "plain.pt")


def same(line, expected):
    """Assert that two printed lines are one, but for rounding."""
    numbers, wanted = ([float(number) for number in NUMBER.findall(text)] for text in (line, expected))
    assert numbers == pytest.approx(wanted, rel=1e-5, abs=1e-6), line
    assert NUMBER.sub("", line) == NUMBER.sub("", expected)


def same_run(work, text, lines, weights, count, *, layout="", kind=Run, **wishes):
    """Run *text* on *count* ranks in *layout* (words of `--layout`) and compare it with the plain run."""
    name = re.sub(r"\W", "_", f"run{count}{layout}")
    run = kind(work / name, launch(count), Wishes(layout=Layout.parse(layout), **wishes))
    ranks = run.ranks(submitit(count), run.script(text), str(run.folder / "weights.pt"))
    assert_same_ranks(run, ranks, lines, weights)
    return run, ranks


def assert_same_ranks(run, ranks, lines, weights):
    """Assert that *ranks* of *run* have ended well, and printed and saved what one device does."""
    count = len(ranks)
    assert [rank.code for rank in ranks] == [0] * count, "\n".join(rank.err for rank in ranks)
    assert [rank.out for rank in ranks[1:]] == [""] * (count - 1)
    silent = "".join(rank.err for rank in ranks[1:])
    assert not silent, silent
    assert len(ranks[0].out.splitlines()) == len(lines)
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)
    saved = torch.load(run.folder / "weights.pt")
    assert_same_weights(saved, weights)


def assert_same_weights(saved, weights):
    """Assert that two lists or state dicts of tensors agree."""
    if isinstance(weights, dict):
        assert list(saved) == list(weights)
        saved, weights = list(saved.values()), list(weights.values())
    for mine, theirs in zip(saved, weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
