"""The reader of batch scripts: what it knows of commands and variables, and what it leaves open."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import nasty, words

from lumi_moai import catalog
from lumi_moai.check import check, read
from lumi_moai.check.value import arithmetic, hole, known, shown


def commands(text, name, files=None):
    return [c for c in read(text, "job.sh", (files or {}).get).commands if c.name == name]


def words_of(text, name, files=None):
    return [[w.shown for w in c.words] for c in commands(text, name, files)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=5\necho $A", ["echo", "5"]),
        ("c=fe\nM=\"0x${c}00,0x${c}\"\necho --x=$M", ["echo", "--x=0xfe00,0xfe"]),
        ("echo ${A:-7} ${B-x} ${C:+y}", ["echo", "7", "x"]),
        (": ${X:=3}\necho $X", ["echo", "3"]),
        ("A='one two'\necho $A \"$A\" '$A'", ["echo", "one", "two", "one two", "$A"]),
        ("A=(a b)\nA+=(c)\necho ${A[@]}", ["echo", "a", "b", "c"]),
        ("A=1\nA+=2\necho $A", ["echo", "12"]),
        ("N=4\necho $((N*8+1)) $((10/0))", ["echo", "33", "${arithmetic}"]),
        ("echo a\\\n  b", ["echo", "a", "b"]),
        ("if x; then A=1; else A=1; fi\necho $A", ["echo", "1"]),
        ("if x; then A=1; else A=2; fi\necho $A", ["echo", "${A}"]),
        ("A=1\nif x; then A=2; exit; fi\necho $A", ["echo", "1"]),
        ("A=1\nfor A in 1 2; do :; done\necho $A", ["echo", "${A}"]),
        ("f() { echo $1-${2}; }\nf a b", ["echo", "a-b"]),
        ("echo $1-$2", ["echo", "${unread}"]),
        ("A=1\n(A=2)\necho $A", ["echo", "1"]),
        ("A=1\nx | A=2\necho $A", ["echo", "1"]),
        ("eval 'A=9'\necho $A", ["echo", "9"]),
        ("A=1\nB=2\necho \"$A $B  ${A} $((A+B)) $(x)\"", ["echo", "1 2  1 3 $(x)"]),
        ("A=(5 6)\nN=9\neval \"echo ${A[0]} ${#A[@]} ${N%8}\"", ["echo", "${A[0]}", "${#A[@]}", "${N%8}"]),
        ("exec > log 2>&1\necho a", ["echo", "a"]),
        ("exec 3>&1\nexec echo a\necho b", ["echo", "a"]),
        ("bash <<< 'echo a'", ["echo", "a"]),
        ("A=1\nbash <<< \"echo $A\"", ["echo", "1"]),
        ("\ufeff#!/bin/bash\necho a", ["echo", "a"]),
        ("#SBATCH -N 4\n#SBATCH --ntasks-per-node=8\necho $SLURM_NTASKS $SLURM_PROCID", ["echo", "32", "${SLURM_PROCID}"]),
    ],
)  # fmt: skip
def test_values_are_followed_as_far_as_they_are_constant(text, expected):
    assert words_of(text, "echo")[-1] == expected


NESTED = """#!/bin/bash
export A=1
B=2
srun -n 8 --cpu-bind=cores singularity exec -B /x --env C=3 img.sif bash -c 'D=4; python "$D" $1' _ train.py
"""


def test_programs_that_start_programs_are_unfolded():
    (python,) = commands(NESTED, "python")
    assert [c.name for c in python.within] == ["srun", "singularity", "bash"]
    assert python.step.words[1].text == "-n"
    assert (python.value("A"), python.value("B"), python.value("C")) == ("1", None, "3")
    assert python.words[1].text == "4"
    assert python.place.line == 4
    assert NESTED[python.place.start : python.place.end].startswith('python "$D"')


WRITTEN = """#!/bin/bash
cat << EOF > wrap_$SLURM_JOB_ID.sh
export RANK=\\$SLURM_PROCID
exec "\\$@"
EOF
srun ./wrap_$SLURM_JOB_ID.sh python train.py
"""


@pytest.mark.parametrize(
    "start",
    ["bash -c 'python \"$@\"' _ t.py", "bash -c 'python $1' name t.py", "bash -euxo pipefail -c 'python t.py'",
     "bash -eo pipefail x.sh", "sh -ec 'exec python t.py'", "rocprofv3 --stats -- python t.py",
     "/usr/bin/time -v stdbuf -oL python t.py", "timeout -s USR1 9 nice -n 5 python t.py"],
)  # fmt: skip
def test_the_program_is_found_behind_what_starts_it(start):
    assert words_of(f"srun {start}", "python", {"x.sh": "#!/bin/bash\npython t.py\n"}) == [["python", "t.py"]]


def test_a_wrapper_made_by_a_here_document_is_followed():
    script = read(WRITTEN, "job.sh")
    (rank,) = [a for a in script.assignments if a.variable.name == "RANK"]
    assert rank.in_task
    assert rank.place.line == 3
    assert not script.absent


LONG = """A=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
P=$(expr 10000 + $(echo -n $SLURM_JOB_ID | tail -c 4) + $(printf "%s" "a long line of more letters than are shown"))
L="accelerate launch --main_process_ip $A --main_process_port $P"
srun bash -c "$L train.py --port $P"
cat << EOF > w.sh
python t.py --at $A:$P "a b"
EOF
srun bash w.sh
"""


def test_what_is_filled_in_before_a_text_is_read_is_no_part_of_its_grammar():
    script = read(LONG, "job.sh")
    assert not script.unread
    assert words_of(LONG, "accelerate")[0][-3:] == ["train.py", "--port", "$(expr ...)"]
    assert words_of(LONG, "python")[0][-1] == "a b"
    assert [c.name for c in script.commands if c.step is not None and c.name in ("scontrol", "expr")] == []


def test_steps_side_by_side_are_two_steps_of_two_components():
    found = words_of("srun -n 1 python a.py : -n 8 python b.py : --het-group=0 c\n", "srun")
    assert found == [["srun", "--het-group=0", "-n", "1", "python", "a.py"],
                     ["srun", "--het-group=1", "-n", "8", "python", "b.py"], ["srun", "--het-group=0", "c"]]  # fmt: skip


def test_helpers_at_hand_are_followed_and_others_are_named():
    text = "source env.sh\nsource gone.sh\nsrun ./launch.sh x\nsrun ./absent.sh\n"
    files = {"env.sh": "export A=1\n", "launch.sh": "#!/bin/bash\npython $1 $A\n"}
    script = read(text, "job.sh", files.get)
    assert [(a.path, a.sourced) for a in script.absent] == [("gone.sh", True), ("./absent.sh", False)]
    (python,) = [c for c in script.commands if c.name == "python"]
    assert [w.text for w in python.words] == ["python", "x", "1"]
    assert python.place.path == "launch.sh"


def test_a_batch_script_in_a_here_document_is_a_script_of_its_own():
    script = read("N=2\nsbatch << EOF\n#!/bin/bash\n#SBATCH -N $N\nsrun x\nEOF\n", "job.sh")
    (inner,) = script.inner
    assert inner.asked.nodes == 2
    assert inner.line_place(1).line == 4
    assert not script.header.lines


def test_tabs_in_front_of_a_here_document_with_a_dash_are_gone():
    script = read("if x; then\n\tsbatch <<- 'E'\n\t\t#!/bin/bash\n\t\t#SBATCH -N 2\n\t\tsrun x\n\tE\nfi\n", "job.sh")
    (inner,) = script.inner
    assert (inner.asked.nodes, [c.name for c in inner.commands], inner.line_place(1).line) == (2, ["srun", "x"], 4)


def test_a_script_that_calls_itself_ends():
    text = "#!/bin/bash\nf() { f; f; }\nf\nbash job.sh\n"
    begun = time.monotonic()
    read(text, "job.sh", {"job.sh": text}.get)
    assert time.monotonic() - begun < 5


def test_modules_and_computed_exports_hide_what_they_set():
    script = read("srun a\nmodule load x\nsrun b\n", "job.sh")
    assert [c.seen for c in script.commands if c.name in "ab"] == [True, False]
    assert read('export "$KEY"="$VALUE"\n', "job.sh").clouds


@pytest.mark.parametrize(
    ("sum_", "value"),
    [("2*(3+4)", "14"), ("-7/2", "-3"), ("-7%2", "-1"), ("N%3", "1"), ("X+1", "${X}"), ("9**9**9", "${arithmetic}")],
)
def test_sums_are_reckoned_without_running_anything(sum_, value):
    assert shown(arithmetic(sum_, {"N": "4"})) == value


def test_a_hole_splits_no_word():
    assert not known(hole("a b"))
    assert len(words_of("echo $(date +%F now)", "echo")[0]) == 2


shell = st.lists(
    st.one_of(
        st.sampled_from(["if", "then", "fi", "for", "do", "done", "(", ")", "{", "}", "<<EOF\n", "EOF\n", "'", '"', "$(",
                         "srun", "-n 8", "bash -c", "export A=", "${A:-", "}", ";", "\n", "\\\n", "case", "esac", "#SBATCH -N",
                         "source", "eval", "$((", "))", "é", "\r\n", "\x00", "\ue000", "function f", "|", "&&", "[[", "]]"]),
        nasty, words),
    max_size=30,
).map(" ".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(shell)
def test_no_text_makes_the_reader_raise(text):
    script = read(text, "job.sh")
    for command in script.commands:
        if command.place.start is not None and command.place.path == "job.sh":
            assert 0 <= command.place.start <= command.place.end <= len(script.text)


@pytest.mark.parametrize("text", ["(" * 3000, "$(" * 2000, "if x; then " * 800, '"${A:-' * 1500, "bash -c '" * 500])
def test_deep_nesting_is_survived(text):
    read(text, "job.sh")


@pytest.mark.parametrize(
    "text",
    ["\n" * 300_000, "srun -n 8 python t.py\n" * 9000, "a=x$a$a\necho $a\n" * 5000, "'" * 200_000, "${" * 100_000,
     "".join(f"export A{i}=1; echo\n" for i in range(9000)), "x\r\n" * 90_000],
)  # fmt: skip
def test_long_texts_take_seconds_at_most(text):
    begun = time.process_time()  # not the clock's: three other test runs are beside this one
    check(read(f"#!/bin/bash\n#SBATCH -p small-g\n{text}", "job.sh"), catalog.site("lumi"))
    assert time.process_time() - begun < 20


def test_what_is_too_long_to_follow_is_told():
    script = read("echo\n" * 12_000, "job.sh")
    assert script.unread
    assert len(script.commands) < 12_000


def test_letters_beyond_ascii_keep_their_place_and_never_reach_the_grammar():
    script = read("echo näh \U0010ffff; A='日本' srun \"é$A\"\n", "job.sh")
    assert [[w.shown for w in c.words] for c in script.commands] == [
        ["echo", "näh", "\U0010ffff"],
        ["srun", "é${A}"],
        ["é${A}"],
    ]
    (srun,) = [c for c in script.commands if c.name == "srun"]
    assert script.text[srun.words[1].place.start : srun.words[1].place.end] == '"é$A"'
    from lumi_moai.check.source import Source

    assert Source("job.sh", "é\x0b日 x").root.text == b"___ x"
