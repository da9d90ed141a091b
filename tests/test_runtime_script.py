"""The user's script in its rank, without torch: arguments, exit codes, tracebacks, the signal, ranks that die."""

import os
import signal
import subprocess
import sys
import time

import pytest
from runtime_ranks import FEW_SECONDS, ColdRun, ended, launch, submitit, wait_for

from lumi_moai.runtime import late
from lumi_moai.runtime.start import drop_absent_interfaces, parse


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--run", "/r", "--", "a.py", "--run", "x", "--"], ("a.py", False, ("--run", "x", "--"))),
        (["--run", "/r", "a.py"], ("a.py", False, ())),
        (["--run", "/r", "--module", "pkg.train", "-x"], ("pkg.train", True, ("-x",))),
        (["--run", "/r", "--", "--module", "m"], ("m", True, ())),
        (["--run", "/r"], None),
        (["--run", "/r", "--"], None),
        (["--run", "/r", "--module"], None),
        (["a.py"], None),
        ([], None),
    ],
)
def test_everything_after_the_scripts_name_is_the_scripts(words, expected):
    command = parse(words)
    assert (command and (command.target, command.is_module, command.arguments)) == expected


def test_without_words_the_usage_is_shown():
    done = subprocess.run([sys.executable, "-m", "lumi_moai.runtime"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m lumi_moai.runtime --run RUN")


@pytest.fixture
def alone(work):
    """Runs a script as the only rank."""

    def start(text, *words):
        run = ColdRun(work, launch(1))
        (rank,) = run.ranks(submitit(1), run.script(text), *words)
        return rank

    return start


def test_a_script_sees_what_python_would_show_it(work, alone):
    (work / "code").mkdir()
    (work / "code" / "beside.py").write_text("VALUE = 42")
    rank = alone(
        "import sys, os, beside; print(sys.argv[1:], __name__, __file__, beside.VALUE, os.getcwd())", "--", "-x", "a b"
    )
    path = work / "code" / "script.py"
    assert rank.out == f"['--', '-x', 'a b'] __main__ {path} 42 {work}\n"
    assert rank.code == 0


def test_main_of_the_script_is_main(alone):
    text = """
    import pickle, sys
    class Thing: pass
    print(type(pickle.loads(pickle.dumps(Thing()))).__module__, sys.modules['__main__'].Thing is Thing)
    """
    assert alone(text).out == "__main__ True\n"


def test_a_script_without_torch_never_imports_it(alone):
    rank = alone("import sys, lumi_moai; lumi_moai.enable_advanced_parallelization(); print('torch' in sys.modules)")
    assert rank.out == "False\n"


def test_a_module_runs_as_with_m(work):
    run = ColdRun(work, launch(1))
    package = work / "code" / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text("import sys; from . import __name__ as n; print(n, __name__, sys.argv[1:])")
    (rank,) = run.ranks(submitit(1), "--module", "pkg.train", "--lr", "1")
    assert rank.out == "pkg __main__ ['--lr', '1']\n"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit('no data')", 1, "no data\n"),
        ("raise SystemExit(256 + 7)", 7, ""),
        (
            "from lumi_moai.errors import RequestError; raise RequestError('cannot be had')",
            1,
            "lumi-moai: Error: cannot be had\n",
        ),
    ],
)
def test_exit_codes_are_the_scripts(alone, text, code, words):
    rank = alone(text)
    assert rank.code == code
    assert rank.err.splitlines(keepends=True)[1:] == ([words] if words else [])


def test_a_traceback_begins_in_the_users_script(alone):
    rank = alone("def train():\n    return 1 / 0\n\ntrain()\n")
    assert rank.code == 1
    lines = rank.err.splitlines()
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[2].strip().startswith("File")
    assert "script.py" in lines[2]
    assert "runtime" not in "".join(lines[1:])
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_syntax_error_is_shown(alone):
    rank = alone("def (:\n")
    assert rank.code == 1
    assert "SyntaxError" in rank.err


def test_a_script_that_does_not_exist_is_one_sentence(work):
    run = ColdRun(work, launch(1))
    (rank,) = run.ranks(submitit(1), "nothing.py")
    assert rank.code == 1
    assert f"there is no script {work / 'code' / 'nothing.py'}" in rank.err


def test_the_signal_ahead_of_the_time_limit_kills_nobody(work):
    run = ColdRun(work, launch(2))
    text = """
    import os, time
    from pathlib import Path
    from lumi_moai.runtime import alarm
    Path(f"here-{os.environ['RANK']}").touch()
    while not alarm.time_is_short(): time.sleep(0.05)
    time.sleep(0.5)
    print("went on")
    """
    processes = run.start(submitit(2), run.script(text))
    for rank, process in enumerate(processes):
        wait_for(work / f"here-{rank}")
        process.send_signal(signal.SIGUSR2)
        process.send_signal(signal.SIGUSR2)
    ranks = ended(processes)
    assert [(rank.code, rank.out) for rank in ranks] == [(0, "went on\n")] * 2
    assert ranks[0].err.count("the time limit is near") == 1
    assert "time limit" not in ranks[1].err


def test_told_to_end_a_rank_ends(work):
    run = ColdRun(work, launch(1))
    (process,) = run.start(submitit(1), run.script("import time; open('here', 'w'); time.sleep(600)"))
    wait_for(work / "here")
    process.terminate()
    (rank,) = ended([process])
    assert rank.code == -signal.SIGTERM


WAITING = """
import os, sys, time
from pathlib import Path
if os.environ["RANK"] != "1": time.sleep(600)
time.sleep(0.5)
"""


def test_a_rank_that_raises_takes_the_others_along(work):
    run = ColdRun(work, launch(3))
    begun = time.monotonic()
    ranks = run.ranks(submitit(3), run.script(WAITING + "raise ValueError('bad row')"))
    assert [rank.code for rank in ranks] == [1, 1, 1]
    assert "lumi-moai: rank 1 failed:" in ranks[1].err
    assert "ValueError: bad row" in ranks[1].err
    assert "Traceback" not in ranks[0].err + ranks[2].err
    assert time.monotonic() - begun < FEW_SECONDS / 2


def test_a_rank_that_exits_takes_the_others_along_with_its_code(work):
    run = ColdRun(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(WAITING + "sys.exit(9)"))
    assert [rank.code for rank in ranks] == [9, 9]


def test_a_rank_that_is_killed_takes_the_others_along(work):
    run = ColdRun(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(WAITING + "os.kill(os.getpid(), 9)"))
    assert [rank.code for rank in ranks] == [1, -9]
    assert "rank 1 was killed" in ranks[0].err


def test_a_crash_in_compiled_code_says_where_the_script_was(work):
    run = ColdRun(work, launch(2))
    crash = "import ctypes\ndef crash():\n    ctypes.string_at(1)\ncrash()"
    ranks = run.ranks(submitit(2), run.script(WAITING + "exec(compile(" + repr(crash) + ", 'crash.py', 'exec'))"))
    assert [rank.code for rank in ranks] != [0, 0]
    assert ranks[1].code == -11
    assert "Fatal Python error: Segmentation fault" in ranks[1].err
    assert 'File "crash.py", line 3 in crash' in ranks[1].err


def test_a_rank_that_ends_well_leaves_the_others_alone(work):
    run = ColdRun(work, launch(2))
    text = "import os, time; time.sleep(2 if os.environ['RANK'] == '0' else 0); print('done')"
    assert [(rank.code, rank.out) for rank in run.ranks(submitit(2), run.script(text))] == [(0, "done\n")] * 2


def test_when_all_fail_one_traceback_is_shown(work):
    run = ColdRun(work, launch(3))
    ranks = run.ranks(submitit(3), run.script("open('/nowhere')"))
    assert [rank.code for rank in ranks] == [1, 1, 1]
    errors = "".join(rank.err for rank in ranks)
    assert errors.count("Traceback") == 1
    assert errors.count("stopped too: FileNotFoundError") == 2


def test_a_rank_that_failed_ends_although_a_thread_hangs(work):
    run = ColdRun(work, launch(1))
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nraise ValueError"
    (rank,) = run.ranks(submitit(1), run.script(text))
    assert rank.code == 1
    assert "ValueError" in rank.err


def test_a_rank_that_failed_still_runs_its_exit_functions(work):
    run = ColdRun(work, launch(1))
    text = """
    import atexit, sys, threading, time
    atexit.register(print, "left")
    threading.Thread(target=lambda: (time.sleep(0.3), print("saved"))).start()
    sys.exit(4)
    """
    (rank,) = run.ranks(submitit(1), run.script(text))
    assert (rank.code, rank.out) == (4, "saved\nleft\n")


def test_the_call_comes_right_after_the_import(work, monkeypatch):
    (work / "slowmodule.py").write_text("value = 1")
    monkeypatch.syspath_prepend(work)
    seen = []
    late.after_import("slowmodule", lambda: seen.append(sys.modules["slowmodule"].value))
    import slowmodule

    assert seen == [1]
    assert type(slowmodule.__loader__).__name__ == "SourceFileLoader"
    late.after_import("slowmodule", lambda: seen.append(2))
    assert seen == [1, 2]


def test_an_interface_that_is_not_here_is_forgotten(capsys):
    environ = {"GLOO_SOCKET_IFNAME": "hsn0,lo", "OTHER": "1"}
    drop_absent_interfaces(environ, announce=True)
    assert environ["GLOO_SOCKET_IFNAME"] == "lo"
    environ["GLOO_SOCKET_IFNAME"] = "hsn0,hsn1"
    drop_absent_interfaces(environ, announce=True)
    assert environ == {"OTHER": "1"}
    assert "no network interface hsn0,hsn1" in capsys.readouterr().err


def test_threads_are_shared_by_ranks_that_share_cores(work):
    run = ColdRun(work, launch(2))
    few = len(os.sched_getaffinity(0)) // 2 or 1
    ranks = run.ranks(submitit(2), run.script("import os; print(os.environ['OMP_NUM_THREADS'])"))
    assert [rank.out for rank in ranks] == [f"{few}\n"] * 2


def test_torchrun_starts_the_ranks(work):
    pytest.importorskip("torch")
    run = ColdRun(work, launch(2, launcher="torchrun"))
    name = run.script("import os, sys; print(os.environ['RANK'], sys.argv[1:])")
    # Without the first "--" torchrun reads our --run as an abbreviation of an option of its own.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    done = subprocess.run(
        [*torchrun, "lumi_moai.runtime", "--run", str(work), "--", name, "--lr", "1", "--"],
        check=True,
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert sorted(done.stdout.splitlines()) == ["0 ['--lr', '1', '--']", "1 ['--lr', '1', '--']"]


def test_open_files_are_written_and_pools_end_though_the_rank_leaves_early(work):
    run = ColdRun(work, launch(2))
    text = (
        "import os, torch, concurrent.futures\n"
        "pool = concurrent.futures.ThreadPoolExecutor(2); pool.submit(print, 'from a pool')\n"
        "held = open(f'out{os.environ[\"RANK\"]}', 'w'); held.write('kept')\n"
    )
    ranks = run.ranks(submitit(2), run.script(text))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert {path.read_text() for path in work.rglob("out[01]")} == {"kept"}


LEFT = """
import atexit, weakref
import torch.distributed as dist
dist.init_process_group("gloo")
part = dist.new_group([0, 1])
kept = [weakref.ref(dist.group.WORLD), weakref.ref(part)]
del part
atexit.register(lambda: print([group() is not None for group in kept], dist.is_initialized()))
"""


def test_a_group_that_was_left_is_not_freed(work):
    # PyTorch 2.6 waits for gloo's threads as it frees a group, and they may wait for Python: ranks hung at their end.
    run = ColdRun(work, launch(2))
    ranks = run.ranks(submitit(2), run.script(LEFT))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err + ranks[1].err
    assert ranks[0].out == "[True, True] False\n"


def test_a_script_that_knows_nothing_of_its_ranks_is_told(work):
    run = ColdRun(work, launch(2))
    ranks = run.ranks(submitit(2), run.script("import torch"))
    assert "this script ran 2 times" in ranks[0].err
    assert ranks[1].err == ""
    joined = "import torch.distributed as dist; dist.init_process_group('gloo'); dist.destroy_process_group()"
    assert "ran 2 times" not in run.ranks(submitit(2, job="78"), run.script(joined))[0].err


def test_sets_have_the_same_order_on_every_rank_and_in_every_start(work):
    text = "import os; print(list({'the', 'cat', 'sat', 'on', 'a', 'mat'}), os.environ['PYTHONHASHSEED'])"
    starts = []
    for name in ("first", "second"):
        run = ColdRun(work / name, launch(3))
        starts += run.ranks(submitit(3), run.script(text))
    assert [rank.code for rank in starts] == [0] * 6
    assert len({rank.out for rank in starts}) == 1


def test_the_users_order_of_sets_is_kept(work):
    run = ColdRun(work, launch(1))
    text = "import os; print(hash('cat'), os.environ['PYTHONHASHSEED'])"
    (rank,) = run.ranks([{**submitit(1)[0], "PYTHONHASHSEED": "7"}], run.script(text))
    plain = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True
    )
    assert rank.out == plain.stdout
