"""Folders of logs that lumi-moai did not make, and files that are no logs: one sentence, and the rest still read."""

import gzip
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_collect import STEPS, make_run, refuse

from lumi_moai.cli import main
from lumi_moai.gather import many
from lumi_moai.gather.folders import _belongs, runs_in

CRASH = "Traceback (most recent call last):\nValueError: no\n"


def report_of(*words):
    done = CliRunner().invoke(main, ["collect", "--json", *map(str, words)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def write(work, files):
    for at, (name, text) in enumerate(files.items()):
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (1000 + at, 1000 + at))


@pytest.mark.parametrize(
    ("name", "run", "rank"),
    [
        ("slurm-123.out", "slurm-123", None),
        ("slurm-123.err", "slurm-123", None),
        ("slurm-123_4.out", "slurm-123_4", None),
        ("123_0_log.out", "123", 0),
        ("123_7_12_log.err", "123_7", 12),
        ("train-17-rank3.log", "train-17", 3),
        ("train-17-node1.log", "train-17", 1),
        ("log_rank_12.txt", "log", 12),
        ("rank0.out", "run", 0),
        ("job.o123", "job-123", None),
        ("job.e123", "job-123", None),
        ("attempt_0/3/stderr.log", "attempt_0", 3),
        ("a/train.stdout.log.gz", "a/train", None),
        ("stdout", "run", None),
    ],
)
def test_names(name, run, rank):
    assert _belongs(Path(name)) == (run, rank)


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda name: name not in (".", "..")))
def test_any_name_belongs_somewhere(name):
    assert _belongs(Path(name))[0]


def test_the_ranks_and_streams_of_a_run_are_one_report(work):
    write(
        work,
        {
            "x/slurm-5.out": STEPS,
            "x/slurm-5.err": CRASH,
            "x/job-rank0.log": STEPS,
            "x/job-rank3.log": CRASH,
            "x/job-rank1.log": CRASH,
            "x/notes.txt": "buy milk\n",
            "x/train.py": STEPS,
            "x/deep/old.log.gz": gzip.compress(STEPS.encode()),
            "x/.hidden/y.log": STEPS,
        },
    )
    values, stderr = report_of(work / "x")
    assert stderr == ""
    tasks = {task["name"]: task for task in values["tasks"]}
    assert set(tasks) == {"slurm-5", "job", "deep/old"}
    assert (tasks["slurm-5"]["records"], tasks["slurm-5"]["outcome"]) == (9, "failed")
    assert tasks["slurm-5"]["evidence"]["place"] == "slurm-5.err:2"
    assert (tasks["job"]["records"], tasks["job"]["evidence"]["rank"]) == (9, 3)
    assert values["records"] == 27


def test_submitit_and_torchrun(work):
    write(work, {"s/7_0_log.out": STEPS, "s/7_1_log.out": "", "s/7_1_log.err": CRASH})
    values, stderr = report_of(work / "s")
    assert (values["records"], values["evidence"]["rank"]) == (9, 1)
    assert stderr == f"Warning: {work}/s/7_1_log.out is empty\n"
    write(work, {"t/attempt_0/0/stdout.log": STEPS, "t/attempt_0/2/stderr.log": CRASH})
    assert report_of(work / "t")[0]["evidence"]["rank"] == 2


def test_runs_of_lumi_moai_among_others(work):
    write(work, {"x/slurm-5.out": STEPS})
    run = make_run(work / "x" / "train-1", "local-1", "local")
    (run.logs / "train-local-1-rank0.log").write_text(STEPS)
    values, _ = report_of(work / "x")
    assert {task["name"] for task in values["tasks"]} == {"train", "slurm-5"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "x is not the folder of a submitted run, and it holds no logs"),
        ({"x/notes.txt": "buy milk\n", "x/a.txt": "b"}, "none of its 2 files is a log"),
        ({"x/a.png": b"\x89PNG"}, "it holds no logs"),
    ],
)
def test_a_folder_without_logs(work, files, sentence):
    (work / "x").mkdir()
    write(work, files)
    done = CliRunner().invoke(main, ["collect", "x"])
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_too_many_files(work, monkeypatch):
    monkeypatch.setattr("lumi_moai.gather.folders.MOST", 2)
    write(work, {f"x/{n}.log": STEPS for n in range(3)})
    done = CliRunner().invoke(main, ["collect", "x"])
    assert "has more than 2 logs in it" in done.stderr


def test_what_cannot_be_read_is_one_sentence_and_the_rest_is_read(work, monkeypatch):
    write(work, {"good.out": STEPS, "empty.out": "", "locked.log": "x", "elf.out": b"\x7fELF\x02\x01" + bytes(500)})
    monkeypatch.setattr("builtins.open", refuse(open))
    words = ["good.out", "empty.out", "locked.log", "elf.out", "gone.log"]
    values, stderr = report_of(*words)
    assert (values["records"], len(values["tasks"])) == (9, 3)
    assert sorted(stderr.splitlines()) == [
        "Warning: elf.out is binary, not the text of a log",
        "Warning: empty.out is empty",
        "Warning: the log locked.log cannot be read: Permission denied",
        "Warning: there is no run 'gone.log' among yours; `lumi-moai status` lists them, a run folder works too",
    ]
    values, stderr = report_of(work)
    assert (values["records"], stderr.count("Warning: ")) == (9, 3)


def test_no_word_that_can_be_read(work):
    done = CliRunner().invoke(main, ["collect", "gone.log", "lost.log"])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 2


def test_a_link_to_itself(work):
    (work / "x").mkdir()
    (work / "x" / "loop").symlink_to(work / "x")
    write(work, {"x/a.log": STEPS})
    assert [len(files) for files in runs_in(work / "x")[1].values()] == [1]


def test_several_large_logs_are_read_by_several_processes(work, monkeypatch):
    monkeypatch.setattr(many, "cores", lambda: 2)
    monkeypatch.setattr(many, "WORTH", 1)
    read = many.read_log
    asked = []
    monkeypatch.setattr(
        many, "read_log", lambda path, *words, **more: asked.append(os.getpid()) or read(path, *words, **more)
    )
    write(work, {f"{name}.out": STEPS for name in "abcd"} | {"torn.out": b"\x1f\x8b\x00"})
    values, stderr = report_of(*(f"{name}.out" for name in "abcd"), "torn.out")
    assert [task["records"] for task in values["tasks"]] == [9] * 4
    assert asked == []  # all were read elsewhere
    assert "torn.out cannot be read" in stderr


def test_the_table_of_a_logger_is_a_log(work):
    write(
        work, {"version_0/metrics.csv": "epoch,step,train_loss\n0,49,2.5\n0,99,1.5\n", "people.csv": "name,age\nx,1\n"}
    )
    report, _ = report_of(work)
    assert (report["format"], report["last_step"], report["loss_last"]) == ("csv", 99, 1.5)
