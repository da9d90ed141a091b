"""`lumi-moai check`: what it prints, writes and answers; files that are no batch scripts."""

import json
import os
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lumi_moai.cli import main

WRONG = """#!/bin/bash
#SBATCH --account=project_465000001 --partition=small-g
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1
#SBATCH --cpus-per-task=1 --mem=60G --time=4-00:00:00 --signal=USR1@60
srun python träin.py "$x"   # no end of line"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "job.sh").write_text(WRONG)
    return tmp_path


def check(*words):
    return CliRunner().invoke(main, ["check", *words])


def test_the_line_stands_under_the_finding_with_a_mark(here):
    done = check("job.sh")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if "LM210" in line)
    assert lines[at].startswith("job.sh:4:37: error: 4-00:00:00 is over the limit 3-00:00:00 of partition small-g")
    assert lines[at + 1].endswith("--time=4-00:00:00 --signal=USR1@60")
    assert lines[at + 2].index("^") == lines[at + 1].index("--time")
    assert lines[at + 2].count("^") == len("--time=4-00:00:00")
    assert lines[-1] == "job.sh: 1 error, 1 warning (site lumi)"
    assert "\x1b" not in done.stdout


def test_warnings_alone_are_no_failure(here):
    (here / "job.sh").write_text(WRONG.replace("4-00", "1-00"))
    done = check("job.sh")
    assert (done.exit_code, "warning" in done.stdout) == (0, True)


def test_json_is_one_object_with_stable_keys(here):
    values = json.loads(check("job.sh", "--json").stdout)
    assert (values["errors"], values["warnings"], values["notes"]) == (1, 1, 0)
    (script,) = values["scripts"]
    assert script["site"] == "lumi"
    (found,) = [one for one in script["findings"] if one["rule"] == "LM210"]
    assert (found["line"], found["column"], found["severity"], found["fixable"]) == (4, 37, "error", True)


def test_sarif_has_rules_places_and_fixes(here):
    values = json.loads(check("job.sh", "nothing.sh", "--sarif").stdout)
    (run,) = values["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        region = result["locations"][0]["physicalLocation"]["region"]
        assert (region["startLine"], region["startColumn"]) < (region["endLine"], region["endColumn"])
        for change in result["fixes"][0]["artifactChanges"][0]["replacements"]:
            part = change["deletedRegion"]
            line = WRONG.split("\n")[part["startLine"] - 1]
            assert line[part["startColumn"] - 1 : part["endColumn"] - 1] in ("1", "4-00:00:00")
    assert "nothing.sh cannot be read" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert values["version"] == "2.1.0"


def test_fix_writes_only_what_is_wrong_and_keeps_the_permissions(here):
    (here / "job.sh").chmod(0o750)
    done = check("job.sh", "--fix")
    assert (done.exit_code, done.stdout) == (0, "job.sh: nothing to say; 2 fixed (site lumi)\n")
    assert (here / "job.sh").read_text() == WRONG.replace("4-00", "3-00").replace("-task=1", "-task=7")
    assert stat.S_IMODE((here / "job.sh").stat().st_mode) == 0o750
    assert os.listdir(here) == ["job.sh"]


def test_fix_writes_through_a_link(here):
    (here / "link.sh").symlink_to("job.sh")
    check("link.sh", "--fix")
    assert (here / "link.sh").is_symlink()
    assert "--cpus-per-task=7" in (here / "job.sh").read_text()


def test_diff_shows_and_changes_nothing(here):
    done = check("job.sh", "--diff", "--fix")
    assert "+#SBATCH --cpus-per-task=7 --mem=60G --time=3-00:00:00 --signal=USR1@60" in done.stdout
    assert (here / "job.sh").read_text() == WRONG


def test_line_ends_of_windows_are_taken_out(here):
    (here / "job.sh").write_bytes(WRONG.replace("\n", "\r\n").encode())
    assert "LM102" in check("job.sh").stdout
    check("job.sh", "--fix")
    assert b"\r" not in (here / "job.sh").read_bytes()


def bad_inputs(here):
    (here / "empty.sh").write_text("\n \n")
    (here / "binary.sh").write_bytes(b"\x7fELF\x00\x01")
    (here / "packed.sh").write_bytes(b"\x1f\x8b" + bytes(range(128, 256)))
    (here / "folder.sh").mkdir()
    (here / "long.sh").write_bytes(b"#!/bin/bash\n" + b"x" * (1 << 21))
    (here / "plain.sh").write_text("echo hello\n")
    os.mkfifo(here / "pipe.sh")
    return {"empty.sh": "is empty", "binary.sh": "is a binary file", "packed.sh": "is a binary file", "folder.sh": "Is a directory", "pipe.sh": "is not a plain file", "gone.sh": "No such file",
            "long.sh": "is longer than 1 MiB", "plain.sh": "say with --site which cluster"}  # fmt: skip


def test_each_bad_file_is_one_sentence_and_the_rest_is_read(here):
    expected = bad_inputs(here)
    done = check(*expected, "job.sh")
    assert done.exit_code == 1
    errors = [line for line in done.stderr.splitlines() if line]
    assert len(errors) == len(expected)
    for line, (name, words) in zip(errors, expected.items(), strict=True):
        assert name in line
        assert words in line
    assert "job.sh: 1 error" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_leave_is_one_sentence(here):
    (here / "job.sh").chmod(0)
    assert "Permission denied" in check("job.sh").stderr


@pytest.mark.parametrize("first", ["#!/usr/bin/env fish", "#!/bin/csh -f", "#!/usr/bin/env python3"])
def test_other_shells_are_judged_by_their_directives(here, first):
    (here / "job.sh").write_text(WRONG.replace("#!/bin/bash", first))
    done = check("job.sh")
    assert "LM108" in done.stdout
    assert "LM210" in done.stdout
    assert "LM506" not in check("job.sh").stdout  # what stands below the directives is not read


def test_a_script_for_another_site_is_told_so(here):
    done = check("job.sh", "--site", "delta")
    assert done.exit_code == 1
    assert "site delta has no partition 'small-g'" in done.stdout
    assert done.stdout.splitlines()[-1] == "job.sh: 1 error (site delta)"


def test_helpers_beside_the_script_are_followed(here):
    (here / "sub").mkdir()
    (here / "sub" / "job.sh").write_text(WRONG.replace('python träin.py "$x"', "./go.sh"))
    (here / "sub" / "go.sh").write_text("#!/bin/bash\nexport MASTER_PORT=29500\npython t.py\n")
    assert "go.sh:2:8: warning: port 29500" in check("sub/job.sh").stdout


def test_a_script_from_standard_input(here):
    done = CliRunner().invoke(main, ["check", "-"], input=WRONG)
    assert (done.exit_code, "-:4:37: error" in done.stdout) == (1, True)
    assert CliRunner().invoke(main, ["check", "-", "--fix"], input=WRONG).exit_code == 2
    assert "ends after" in CliRunner().invoke(main, ["explain", "-"], input=WRONG).stdout
    assert "is empty" in CliRunner().invoke(main, ["check", "-"], input="").stderr


def test_bytes_that_are_no_utf8_stay_what_they_are(here):
    (here / "job.sh").write_bytes(WRONG.encode("latin-1"))
    check("job.sh", "--fix")
    assert (here / "job.sh").read_bytes() == WRONG.replace("4-00", "3-00").replace("-task=1", "-task=7").encode(
        "latin-1"
    )


def test_a_file_that_cannot_be_written_is_one_sentence_and_the_rest_is_fixed(here, monkeypatch):
    (here / "other.sh").write_text(WRONG)
    real = os.open

    def full(path, flags, *rest, **more):
        if ".job.sh." in str(path) and flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    done = check("job.sh", "other.sh", "--fix", "--json")
    monkeypatch.undo()
    assert done.exit_code == 1
    first, second = json.loads(done.stdout)["scripts"]
    assert (first["problem"], len(first["findings"]), first["fixed"]) == (
        "job.sh cannot be written: No space left on device", 2, [])  # fmt: skip
    assert (second["problem"], second["findings"], len(second["fixed"])) == (None, [], 2)
    assert (here / "job.sh").read_text() == WRONG
    assert sorted(os.listdir(here)) == ["job.sh", "other.sh"]


def test_terminal_controls_in_a_script_do_not_reach_the_terminal(here):
    (here / "job.sh").write_text(WRONG.replace("--mem=60G", "--mem=60G \x1b[2J"))
    assert "\x1b" not in check("job.sh").stdout


def test_two_ways_of_printing_are_a_usage_error(here):
    assert check("job.sh", "--json", "--sarif").exit_code == 2


def test_the_parser_is_loaded_late():
    code = "import lumi_moai.cli.check, sys; print('tree_sitter' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
