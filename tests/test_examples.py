"""The examples train, and train the same on any number of ranks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runtime_ranks import Run, launch, slurm, submitit

from lumi_moai.step import parse_step

GPT = Path(__file__).parent.parent / "examples" / "train_gpt.py"
TINY = "--max-steps 6 --batch-size 10 --block-size 16 --width 32 --layers 1 --heads 2 --log-interval 1".split()


def steps(text):
    return [step for step in map(parse_step, text.splitlines()) if step]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Steps and weights of the plain script."""
    work = tmp_path_factory.mktemp("alone")
    done = subprocess.run([sys.executable, str(GPT), *TINY], check=True, cwd=work, capture_output=True, text=True)
    assert done.stdout.splitlines()[-3:] == [
        "Training Done",
        "Saving Model...",
        "Model saved in gpt_checkpoint/model.pt",
    ]
    return steps(done.stdout), torch.load(work / "gpt_checkpoint" / "model.pt")


# 10 rows on 4 ranks are 3, 3, 2, 2.
@pytest.mark.parametrize(
    ("ranks", "variables"),
    [
        (1, submitit(1)),
        (2, slurm(2, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")),
        (4, submitit(4)),
    ],
    ids=["one", "two by Slurm", "four by submitit"],
)
def test_a_gpt_trains_as_on_one_device(work, ranks, variables, alone):
    if ranks == 2:  # Slurm's script names the port; here it must be one that is free
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            variables = [{**each, "MASTER_PORT": str(probe.getsockname()[1])} for each in variables]
    run = Run(work, launch(ranks, launcher="srun" if ranks == 2 else "local"))
    first, *others = run.ranks(variables, str(GPT), *TINY)
    assert first.code == 0, first.err
    assert [other.out for other in others] == [""] * (ranks - 1)
    mine, (expected, weights) = steps(first.out), alone
    assert [step.step for step in mine] == [step.step for step in expected] == [1, 2, 3, 4, 5, 6]
    assert [step.loss for step in mine] == pytest.approx([step.loss for step in expected], rel=1e-5)
    assert all(step.rate > 0 and step.unit == "tokens" and step.total == 6 for step in mine)
    saved = torch.load(work / "gpt_checkpoint" / "model.pt")
    assert saved.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(saved[name], weight, rtol=1e-5, atol=1e-5, msg=name)


def test_the_loss_falls(work):
    words = "--max-steps 40 --log-interval 20 --lr 3e-3 --block-size 32 --width 48 --layers 1".split()
    done = subprocess.run([sys.executable, str(GPT), *words], check=True, cwd=work, capture_output=True, text=True)
    first, last = (step.loss for step in steps(done.stdout))
    assert last < first - 0.1


def test_without_lumi_moai_it_is_a_plain_script(work):
    alone = (work / "train_gpt.py").write_text(GPT.read_text())
    assert alone
    command = [sys.executable, "-I", "train_gpt.py", *TINY[:1], "1", *TINY[2:]]
    done = subprocess.run(command, check=True, cwd=work, capture_output=True, text=True)
    assert done.stdout.splitlines()[-3] == "Training Done"


def test_the_head_of_the_example_shows_what_it_prints():
    shown = steps(re.search(r'"""(.*?)"""', GPT.read_text(), re.DOTALL)[1])
    assert [step.step for step in shown] == [10, 60, 120]
