"""One script for one device, under plain `python` and on several ranks: the same lines, the same weights.

The reference is the script under plain `python`, where the one line does nothing. A script saves what it trained, as a
list of tensors or a state dict, with `torch.save(..., sys.argv[1])`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runtime_ranks import Run, launch, submitit

from lumi_moai.plan import Layout, Wishes

NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def plain(work, text):
    """What *text* prints and saves under plain `python`: its lines, and what it saved."""
    # A GPU's name needs the runtime where there is no GPU.
    (work / "plain.py").write_text(text.replace('.to("cuda")', "").replace(".cuda()", ""))
    command = [sys.executable, "plain.py", str(work / "plain.pt")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}  # also where a fixture comes before the world
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), torch.load(work / "plain.pt")


def same(line, expected):
    """Assert that two printed lines are one, but for rounding."""
    numbers, wanted = ([float(number) for number in NUMBER.findall(text)] for text in (line, expected))
    assert numbers == pytest.approx(wanted, rel=1e-5, abs=1e-6), line
    assert NUMBER.sub("", line) == NUMBER.sub("", expected)


def same_run(work, text, lines, weights, count, *, layout="", **wishes):
    """Run *text* on *count* ranks in *layout* (words of `--layout`) and compare it with the plain run."""
    name = re.sub(r"\W", "_", f"run{count}{layout}")
    run = Run(work / name, launch(count), Wishes(layout=Layout.parse(layout), **wishes))
    ranks = run.ranks(submitit(count), run.script(text), str(run.folder / "weights.pt"))
    assert [rank.code for rank in ranks] == [0] * count, "\n".join(rank.err for rank in ranks)
    assert [rank.out for rank in ranks[1:]] == [""] * (count - 1)
    assert [rank.err for rank in ranks[1:]] == [""] * (count - 1)
    assert len(ranks[0].out.splitlines()) == len(lines)
    for line, expected in zip(ranks[0].out.splitlines(), lines, strict=True):
        same(line, expected)
    saved = torch.load(run.folder / "weights.pt")
    assert_same_weights(saved, weights)
    return run, ranks


def assert_same_weights(saved, weights):
    """Assert that two lists or state dicts of tensors agree."""
    if isinstance(weights, dict):
        assert list(saved) == list(weights)
        saved, weights = list(saved.values()), list(weights.values())
    for mine, theirs in zip(saved, weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
