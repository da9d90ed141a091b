"""Real runs on this machine through submitit's local executor: logs, exit codes, cancel, time-out, signals, snapshots."""

import json
import os
import subprocess
import time

import pytest
from click.testing import CliRunner

import lumi_moai
from lumi_moai import rundir
from lumi_moai.cli import main
from lumi_moai.errors import LumiMoaiError, RequestError, RunError
from lumi_moai.launch.run import find_run, follow


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_SITE", "local")


def script(work, text, name="train.py"):
    (work / name).write_text(text)
    return name


def end(run, seconds=60):
    return run.wait(seconds=seconds)


def test_ranks_get_the_scripts_arguments(work):
    name = script(work, "import os, sys; print(os.environ['RANK'], os.environ['WORLD_SIZE'], sys.argv[1:])")
    run = lumi_moai.submit(name, "--batch-size", 32, "a b", "$(x)", flavor="Large")
    assert end(run) == "COMPLETED"
    assert "0 4 ['--batch-size', '32', 'a b', '$(x)']" in run.logs()
    assert "3 4 [" in run.logs(3)
    with pytest.raises(RequestError, match="ranks 0 to 3, not 4"):
        run.logs(4)


def test_a_failing_rank_ends_the_others_within_seconds(work):
    name = script(work, "import os, time\nif os.environ['RANK'] == '1': raise ValueError('rank one')\ntime.sleep(60)")
    started = time.monotonic()
    run = lumi_moai.submit(name, flavor="Large")
    assert end(run) == "FAILED"
    assert time.monotonic() - started < 40
    assert "ValueError: rank one" in run.logs(1)


REFUSED = """
import os, sys, time
from lumi_moai.errors import RequestError
time.sleep(0.3 * (os.environ["RANK"] == "0"))
raise RequestError("this cannot be done on two ranks")
"""


def test_a_reason_is_told_in_the_first_log_that_one_reads(work):
    pytest.importorskip("torch")
    run = lumi_moai.submit(script(work, REFUSED), flavor="Medium")
    assert end(run) == "FAILED"
    assert run.logs(0).count("lumi-moai: Error: this cannot be done on two ranks\n") == 1
    assert "cannot" not in run.logs(1)
    assert run.first_failed == 0
    report = run.report()
    assert (report.outcome, report.cause) == ("failed", "refused")


def test_the_rank_that_failed_first_is_named_beside_the_log_of_another(work):
    run = lumi_moai.submit(
        script(work, "import os, time\nif os.environ['RANK'] == '1': raise ValueError('one')\ntime.sleep(60)"),
        flavor="Medium",
    )
    assert end(run) == "FAILED"
    for words in ((), ("--follow",)):
        shown = CliRunner().invoke(main, ["logs", run.job_id, *words])
        assert "ValueError" not in shown.output
        assert f"Rank 1 failed first; `lumi-moai logs {run.job_id} --rank 1` shows why." in shown.stderr
    assert "ValueError: one" in CliRunner().invoke(main, ["logs", run.job_id, "--rank", "1"]).output
    later = run.folder.certificates / "parts" / f"{run.job_id}-r1"
    later.mkdir()
    (later / "rank-0.json").write_text("{}")
    assert run.first_failed is None, "the start behind it has not failed"


def test_torchrun_on_this_machine(work):
    pytest.importorskip("torch")
    name = script(work, "import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], flush=True)")
    run = lumi_moai.submit(
        name, "--run", "x", "--nnodes", "y", flavor="Medium", launcher="torchrun"
    )  # torchrun knows these words
    assert end(run) == "COMPLETED", run.logs()
    assert "rank 0 of 2" in run.logs(0)


def test_cancel(work):
    run = lumi_moai.submit(script(work, "import time; print('up', flush=True); time.sleep(60)"), flavor="Medium")
    while "up" not in run.logs():
        time.sleep(0.1)
    assert run.state == "RUNNING"
    find_run(run.job_id).cancel()
    assert end(run) == "CANCELLED"


def test_a_time_limit_is_kept_and_announced(work):
    """One minute, the shortest that there is; the announcement comes after half of it."""
    name = script(work, "import time\nfor _ in range(900): time.sleep(0.1)")
    run = lumi_moai.submit(name, flavor="Small", time="1")
    assert end(run, 100) == "TIMEOUT"
    assert "time limit" in run.logs()


def test_a_dead_controller_is_noticed(work):
    run = lumi_moai.submit(script(work, "import time; time.sleep(30)"), flavor="Small")
    pid = rundir.read_json(run.folder.path / "submitted.json")["pid"]
    os.kill(pid, 9)
    run.handle._process.wait()
    assert run.state == "NODE_FAIL"
    subprocess.run(["pkill", "-9", "-f", str(run.folder.path)], check=False)


def test_following_until_the_end(work):
    name = script(work, "import time\nfor n in range(5): print('line', n, flush=True); time.sleep(0.2)")
    text = "".join(follow(lumi_moai.submit(name, flavor="Small")))
    assert [f"line {n}" for n in range(5)] == [line for line in text.splitlines() if line.startswith("line")]


def test_functions(work):
    run = lumi_moai.submit(max, 3, 7, flavor="Medium", name="largest")
    assert run.result() == 7
    assert run.folder.job()["job"]["name"] == "largest"


def test_a_result_that_others_could_have_written_is_not_unpickled(work):
    run = lumi_moai.submit(max, 3, 7, flavor="Small")
    end(run)
    run.folder.path.chmod(0o777)
    with pytest.raises(RunError, match="not unpickled"):
        run.result()


def test_the_code_is_what_it_was_at_submission(work):
    name = script(work, "import helper, time; time.sleep(2); import second; print(helper.WORD, second.WORD)")
    script(work, "WORD = 'old'", "helper.py")
    script(work, "WORD = 'old'", "second.py")
    run = lumi_moai.submit(name, flavor="Small")
    script(work, "WORD = 'new'", "second.py")
    assert end(run) == "COMPLETED"
    assert "old old" in run.logs()


WHERE = "from lumi_moai.runtime import start; print(start.__file__, start.main.__code__.co_filename, sep='|')"


def test_ranks_need_not_compile_us_and_know_our_files(work, monkeypatch):
    strange = work / "a b é"
    strange.mkdir()
    (work / "link").symlink_to(strange)
    monkeypatch.chdir(work / "link")
    run = lumi_moai.submit(script(strange, WHERE), flavor="Small")
    end(run)
    package = f"{run.folder.lib}/lumi_moai.zip/lumi_moai/runtime"
    assert f"{package}/start.pyc|{package}/start.py" in run.logs()


def test_a_python_of_another_version_takes_the_source(work, monkeypatch):
    monkeypatch.setattr("importlib.util.MAGIC_NUMBER", b"\x00\x00\r\n")
    run = lumi_moai.submit(script(work, WHERE), flavor="Small")
    end(run)
    package = f"{run.folder.lib}/lumi_moai.zip/lumi_moai/runtime"
    assert f"{package}/start.py|{package}/start.py" in run.logs()


def test_what_git_tracks_is_taken_and_the_passport_says_so(work):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    git("init")
    (work / "pkg").mkdir()
    script(work, "WORD = 1", "pkg/tracked.py")
    script(work, "x", "pkg/untracked.txt")
    script(work, "x", "data.txt")
    git("add", "pkg/tracked.py")
    git("commit", "-m", "x")
    git("remote", "add", "origin", "https://user:hunter2@example.org/x.git")
    script(work, "WORD = 2", "pkg/tracked.py")
    script(work, "print('hi')", "pkg/train.py")
    run = lumi_moai.submit("pkg/train.py", flavor="Small", include=("data.txt",))
    end(run)
    taken = {str(path.relative_to(run.folder.code)) for path in run.folder.code.rglob("*") if path.is_file()}
    assert taken == {"pkg/tracked.py", "pkg/train.py", "data.txt"}
    passport = json.loads(run.folder.passport.read_text())
    assert len(passport["commit"]) == 40
    assert passport["uncommitted_changes"]
    assert passport["remote"] == "https://example.org/x.git"
    assert passport["packages"]["click"]
    assert "+WORD = 2" in (run.folder.path / "changes.diff").read_text()
    secrets = [path for path in run.folder.path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert not secrets


def test_a_run_folder_is_private_and_complete(work):
    run = lumi_moai.submit(script(work, "print(1)"), flavor="Small")
    end(run)
    assert run.folder.path.stat().st_mode & 0o777 == 0o700
    there = {path.name for path in run.folder.path.iterdir()}
    assert there >= {"job.json", "job.sbatch", "passport.json", "submitted.json", "accounting.json", "code", "lib", "logs",
                     "certificate"}  # fmt: skip
    assert not list(run.folder.path.rglob("*.pkl")), "a script job carries no pickle"


def test_a_folder_with_everything_in_its_name(work, monkeypatch):
    strange = work / "a b 'c' \"d\" $(touch pwned) 100%j é"
    strange.mkdir()
    monkeypatch.chdir(strange)
    run = lumi_moai.submit(script(strange, "print('ran')"), flavor="Small")
    assert end(run) == "COMPLETED"
    assert "ran" in run.logs()
    assert not list(work.rglob("pwned"))


def test_two_submits_in_the_same_second(work):
    name = script(work, "print(1)")
    runs = [lumi_moai.submit(name, flavor="Small") for _ in range(3)]
    assert len({run.folder.path for run in runs}) == 3
    assert len({run.job_id for run in runs}) == 3
    assert {end(run) for run in runs} == {"COMPLETED"}


def test_nothing_is_left_behind_when_it_cannot_be(work):
    name = script(work, "print(1)")
    for wrong in (
        {"flavor": "Smal"},
        {"flavor": "2xLarge"},
        {"flavor": "Small", "array": "0-3"},
        {"flavor": "Small", "env": {"A\n": "x"}},
    ):
        with pytest.raises(LumiMoaiError):
            lumi_moai.submit(name, **wrong)
    assert not (work / "lumi-moai-runs").exists()
    assert not rundir.entries()


def test_a_read_only_place(work):
    (work / "ro").touch()
    with pytest.raises(RunError, match=r"cannot be made: .*; choose another with --runs"):
        lumi_moai.submit(script(work, "print(1)"), flavor="Small", runs=str(work / "ro"))
    assert not rundir.entries()


def test_a_word_that_the_script_does_not_know_is_told_by_rank_0_and_by_collect(work):
    name = script(work, "import argparse; argparse.ArgumentParser().parse_args()")
    run = lumi_moai.submit(name, "--nope", flavor="Large")
    assert end(run) == "FAILED"
    assert "unrecognized arguments: --nope" in run.logs(0)
    assert "unrecognized arguments: --nope" in run.report().evidence.line


def test_real_devices_of_this_machine_are_counted_and_shown_to_the_ranks(work, own_world, monkeypatch):
    """Two files stand for two devices of this machine, which has none."""
    from lumi_moai import catalog

    for name in ("dev0", "dev1"):
        (work / name).touch()
    folder = own_world / ".config/lumi-moai/sites"
    folder.mkdir(parents=True)
    local = (catalog.folders("sites")[-1] / "local.yaml").read_text().splitlines()
    mine = [f'device_files: ["{work}/dev[0-9]"]' if line.startswith("device_files") else line for line in local]
    (folder / "desk.yaml").write_text("\n".join(mine))
    monkeypatch.setenv("LUMI_MOAI_SITE", "desk")
    name = script(work, "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])")
    with pytest.raises(RequestError, match="Large is 4 devices and this machine has 2"):
        lumi_moai.submit(name, flavor="Large")
    run = lumi_moai.submit(name, flavor="Medium")
    assert end(run) == "COMPLETED"
    assert "sees 0,1" in run.logs(1)
