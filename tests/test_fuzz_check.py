"""Damaged scripts for a bounded time: seconds in the tests, `make fuzz` for longer (LUMI_MOAI_FUZZ_SECONDS)."""

import os
import random
import re
import time
from pathlib import Path

from test_check_rules import CASES, GOOD, LUMI

from lumi_moai.check import check, fixed, read, rounds

ROOT = Path(__file__).parent.parent
SEEDS = [text for _, text, _ in CASES] + list(GOOD.values())


def damaged(chance):
    text = chance.choice(SEEDS)
    for _ in range(chance.randint(1, 8)):
        at, end = sorted(chance.randint(0, len(text)) for _ in range(2))
        other = chance.choice(SEEDS)
        cut = chance.randint(0, len(other))
        text = chance.choice([
            text[:at] + text[min(end, at + 20) :],
            text[:at] + chance.choice("'\"`$(){}<>|&;\\\n#=\t\0\x85é") + text[at:],
            text[:at] + other[cut : cut + 200] + text[at:],
            text[:at] + text[at:end] * 2 + text[end:],
        ])[:6000]  # fmt: skip
    return text


def test_damaged_scripts_never_raise_and_fixes_end():
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    until = time.monotonic() + float(os.environ.get("LUMI_MOAI_FUZZ_SECONDS", "3"))
    while time.monotonic() < until:
        text = first = damaged(chance)
        for _ in range(rounds(first)):
            text, done = fixed(text, check(read(text, "job.sh"), LUMI), "job.sh")
            if not done:
                break
        assert not done, (seed, first)


HIDDEN = (
    """#!/bin/bash
#SBATCH --account=project_465000001
#SBATCH --partition=small-g
srun hostname
"""
    + 12 * "#SBATCH -nodes=1\nsrun hostname\n"
)


def test_each_fix_may_make_room_for_the_next():
    """A directive below a command is found first, and its value when it stands above: it took more rounds than were made."""
    text = HIDDEN
    taken = 0
    while taken <= rounds(HIDDEN):
        text, done = fixed(text, check(read(text, "job.sh"), LUMI), "job.sh")
        if not done:
            break
        taken += 1
    assert 8 < taken < rounds(HIDDEN)


def test_what_make_fuzz_sets_reaches_the_tests():
    """Every test's environment is emptied of our variables: for long this kept `make fuzz` to a few seconds."""
    kept = re.search(r"_KEPT = (.*)", (ROOT / "tests" / "conftest.py").read_text())[1]
    assert set(re.findall(r"LUMI_MOAI_FUZZ_\w+", (ROOT / "Makefile").read_text())) <= set(re.findall(r"\w+", kept))
