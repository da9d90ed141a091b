"""`switch-model` speaks like MoAI's menu and works without one."""

import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from lumi_moai import rundir, state
from lumi_moai.cli import main

MENU = """
1. Small.64GB
2. Medium.128GB
3. Large.256GB
4. xLarge.512GB
5. 1.5xLarge.768GB
6. 2xLarge.1024GB
7. 3xLarge.1536GB
8. 4xLarge.2048GB
9. 6xLarge.3072GB
10. 8xLarge.4096GB
11. 12xLarge.6144GB
12. 24xLarge.12288GB
13. 48xLarge.24576GB

"""
PROMPT = "Selection (1-13, q, Q): "


def menu(chosen):
    return MENU.replace(f"{chosen}\n", f"{chosen}  *\n")


def run(*words, keys=None, site="lumi"):
    return CliRunner().invoke(main, ["switch-model", "--site", site, *words], input=keys)


def test_the_menu_is_moais_to_the_letter():
    """What MoAI's tutorials show, and what Moreh's own automation pipes in: `8`, then `q`."""
    state.choose("lumi", "xLarge")
    answer = run(keys="8\nq\n")
    assert answer.exit_code == 0
    assert answer.stdout == (
        f"Current MoAI Accelerator: xLarge.512GB\n{menu('xLarge.512GB')}{PROMPT}"
        'The MoAI Accelerator model is successfully switched to  "4xLarge.2048GB".\n'
        f"{menu('4xLarge.2048GB')}{PROMPT}"
    )
    assert state.chosen("lumi") == "4xLarge"


def test_a_real_pipe_works():
    done = subprocess.run(
        [sys.executable, "-c", "from lumi_moai.cli import main; main()", "switch-model", "--site", "lumi"],
        input="foo\n8\n10\nq\n13\n",
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(PROMPT) == 4
    assert state.chosen("lumi") == "8xLarge"


@pytest.mark.parametrize("keys", ["q\n", "Q\n", "", " q \n"])
def test_leaving_changes_nothing(keys):
    answer = run(keys=keys)
    assert answer.exit_code == 0
    assert "Current MoAI Accelerator: none chosen yet" in answer.stdout
    assert state.chosen("lumi") is None


@pytest.mark.parametrize("wrong", ["0", "14", "-1", "foo", "", "8 8", "QQ", "3.0"])
def test_wrong_input_is_said_and_asked_again(wrong):
    answer = run(keys=f"{wrong}\n4\nq\n")
    assert answer.exit_code == 0
    assert f"{wrong!r} is not a flavor" in answer.stdout
    assert "Enter a number from 1 to 13, or q to leave." in answer.stdout
    assert state.chosen("lumi") == "xLarge"


@pytest.mark.parametrize("word", ["10", "8xLarge", "8XLARGE", "8xlarge.4096gb", "8xLarge.4096GB", "flavor-default-64"])
def test_without_a_menu(word):
    answer = run(word)
    assert (answer.exit_code, answer.stdout) == (
        0, 'The MoAI Accelerator model is successfully switched to  "8xLarge.4096GB".\n'
    )  # fmt: skip
    assert state.chosen("lumi") == "8xLarge"


def test_an_unknown_flavor_is_one_sentence():
    answer = run("8xLarg")
    assert answer.exit_code == 1
    assert answer.stderr == "Error: '8xLarg' is not a flavor; did you mean '8xLarge'?\n"


def test_what_the_site_cannot_take_is_refused():
    answer = run("1.5xLarge", site="local")
    assert answer.exit_code == 1
    assert "1.5xLarge needs 2 nodes" in answer.stderr
    assert state.chosen("local") is None


def test_the_menu_lists_all_and_refuses_what_does_not_fit():
    """Numbers mean the same on every site, so that scripts and habits carry over."""
    answer = run(keys="13\n4\nq\n", site="local")
    assert "48xLarge needs 48 nodes" in answer.stdout
    assert state.chosen("local") == "xLarge"


def entry(**more):
    plain = {"job_id": "17", "name": "train", "folder": "/nowhere", "site": "lumi", "scheduler": "slurm"}
    return rundir.Entry(submitted=time.time(), units_per_hour=4.0, unit="GPU-hours", **{**plain, **more})


def stand_in(folder, monkeypatch, name, text):
    """A program called *name*, first on PATH, that prints *text*."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_running_jobs_keep_their_flavor_and_it_says_so(tmp_path, monkeypatch):
    rundir.record(entry(), entry(job_id="18"), entry(job_id="19", state="COMPLETED"), entry(job_id="20", site="delta"))
    stand_in(tmp_path / "bin", monkeypatch, "squeue", "17|RUNNING|None|1:00|10:00|1|standard-g|train")
    answer = run("Small")
    assert answer.exit_code == 0
    assert answer.stderr == "Run 17 keeps its flavor; the choice counts from the next run on.\n"


def test_where_slurm_does_not_answer_every_open_run_counts(tmp_path, monkeypatch):
    rundir.record(entry(), entry(job_id="18"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert run("Small").stderr == "Runs 17, 18 keep their flavor; the choice counts from the next run on.\n"


def test_a_stronger_setting_is_named(monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_FLAVOR", "Large")
    assert "LUMI_MOAI_FLAVOR sets flavor Large" in run("Small").stderr


def test_a_torn_state_file_does_not_lock_the_menu():
    state.state_file().parent.mkdir(parents=True)
    state.state_file().write_text('{"chosen": {"lu')
    answer = run(keys="2\nq\n")
    assert answer.exit_code == 0
    assert "torn" in answer.stderr
    assert "kept as" in answer.stderr
    assert state.chosen("lumi") == "Medium"
    assert (state.state_file().parent / "state.json.torn-1").read_text() == '{"chosen": {"lu'
