"""Directives as the `sbatch` of Slurm 22.05 read them (`recorded/sbatch_reads.json`): its words, and the values it took."""

import json
from pathlib import Path

import pytest

from lumi_moai import catalog
from lumi_moai.check import check, read
from lumi_moai.sbatch import header
from lumi_moai.sbatch.options import tokens

RECORDED = json.loads((Path(__file__).parent / "recorded" / "sbatch_reads.json").read_text())
LUMI = catalog.site("lumi")


@pytest.mark.parametrize(("line", "first"), RECORDED["words"])
def test_the_first_word_of_a_line_is_slurms(line, first):
    """`first` is the word that sbatch complained of, empty where there was none, null for an open quote."""
    found, is_open = tokens(f"#SBATCH {line}", len("#SBATCH"))
    assert is_open == (first is None)
    assert first is None or (found[0].text if found else "") == first


@pytest.mark.parametrize("name", sorted({name for name, _, _ in RECORDED["values"]}))
def test_what_sbatch_takes_is_not_found_fault_with(name):
    values = [(text, taken) for one, text, taken in RECORDED["values"] if one == name]
    found = {text: _refused(name, text) for text, _ in values}
    assert [text for text, taken in values if taken and found[text]] == []
    assert {text for text, taken in values if not taken and not found[text]} <= LATER.get(name, set())


# What Slurm 22.05 refuses and later releases take, or what is not worth a rule.
LATER = {"nodes": {"2,", "4,"}, "signal": {"BB10"}, "distribution": {":", "::"}}


def _refused(name, text):
    script = read(f'#!/bin/bash\n#SBATCH --{name}="{text}"\n', "job.sh")
    return any(found.rule.id == "LM106" for found in check(script, LUMI))


def test_a_directive_needs_no_blank_behind_its_mark():
    assert [one.name for one in header("#!/bin/bash\n#SBATCH--exclusive\n").directives] == ["exclusive"]


def test_a_hash_ends_a_value_even_in_a_word():
    assert [one.value for one in header("#SBATCH -J a#b -N 2\n#SBATCH -o 'a#b'\n").directives] == ["a", "a#b"]
