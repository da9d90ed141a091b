"""`#SBATCH` lines: every spelling, with its place, and what Slurm does not see."""

import pytest
from hypothesis import given
from strategies import words

from lumi_moai.sbatch import header
from lumi_moai.sbatch.options import options, tokens


def read(line):
    return [(d.name, d.value) for d in header(f"#!/bin/bash\n#SBATCH {line}\n").directives]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-N 2", [("nodes", "2")]),
        ("-N2", [("nodes", "2")]),
        ("-N=2", [("nodes", "2")]),
        ("-Ja=b", [("job-name", "a=b")]),
        ("--nodes=2", [("nodes", "2")]),
        ("--nodes 2 -p x", [("nodes", "2"), ("partition", "x")]),
        ("--comment='a b' --exclusive -n 4 # why", [("comment", "a b"), ("exclusive", ""), ("ntasks", "4")]),
        ("--tasks-per-node=8", [("ntasks-per-node", "8")]),
        ("--part=x", [("partition", "x")]),
        ("--cpus=7", [("cpus", "7")]),
        ("--exclusive=user", [("exclusive", "user")]),
        ("--mem", [("mem", "")]),
        ("-Z", [("", "")]),
    ],
)
def test_every_spelling_has_its_name_and_value(line, expected):
    assert read(line) == expected


def test_a_directive_knows_where_its_value_stands():
    text = "#!/bin/sh\n#SBATCH -N 2 --time='1:00' -p x\n"
    for directive in header(text).directives:
        line = text.split("\n")[directive.line]
        assert line[directive.value_start : directive.end].strip("'") == directive.value
        assert line[directive.start : directive.value_start].strip() == directive.written.strip()


def test_directives_below_the_first_command_do_not_count():
    found = header("#!/bin/sh\n\n# a word\n#SBATCH -N 1\nset -e\n#SBATCH -N 2\n")
    assert (found.lines, found.late) == ((3,), (5,))
    assert [d.value for d in found.directives] == ["1"]


def test_a_second_part_of_a_job_open_quotes_and_strays_are_told():
    found = header("#SBATCH -N 1 8\n#SBATCH -J 'x\n#SBATCH hetjob\n#SBATCH -N 2\n")
    assert (found.hetjob, found.open_quotes, found.strays) == (2, (1,), ((0, "8"),))
    assert ("nodes", "2") not in [(d.name, d.value) for d in found.directives]


@given(words)
def test_no_line_makes_the_reader_raise(text):
    header(f"#SBATCH {text}")
    found, _ = tokens(text)
    assert all(0 <= token.start < token.end <= len(text) for token in found)


def test_the_program_of_srun_is_what_follows_its_options():
    line = "--label -n 8 -W 60 --cpu-bind=cores --kill-on-bad-exit=1 ./run.sh -n 4".split()
    found, at = options(line, program=True)
    assert line[at] == "./run.sh"
    assert [option.name for option in found] == ["label", "ntasks", "wait", "cpu-bind", "kill-on-bad-exit"]


def test_an_equals_sign_in_a_glued_value_is_part_of_it():
    (found,) = header("#SBATCH -Ja=b\n").directives
    assert (found.written, found.value) == ("-J", "a=b")
