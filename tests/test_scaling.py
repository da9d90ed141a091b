"""Efficiency, gain and price: by arithmetic that holds for any runs, and by hand-made logs through the command."""

import csv
import io
import json
import zlib

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import rundir
from lumi_moai.cli import main
from lumi_moai.errors import RequestError
from lumi_moai.rundir import Entry
from lumi_moai.scaling import Measured, scale

sizes = st.lists(st.integers(1, 100_000), min_size=2, max_size=8, unique=True)
rates = st.floats(1e-3, 1e9)
works = st.floats(1.0, 1e9)


def run(devices, rate, work=None, **more):
    return Measured(
        name=f"run{devices}", devices=devices, rate=rate, unit="tokens", work=work, work_unit="rows", **more
    )


@given(sizes, rates, works)
def test_perfect_strong_scaling_is_1(devices, rate, work):
    found = scale(run(n, n * rate, work, units_per_hour=n * 0.5, billing_unit="GPU-hours") for n in devices)
    assert found.kind == "strong"
    assert [each.strong for each in found.runs] == pytest.approx([1.0] * len(devices))
    assert [gain.gain for gain in found.gains] == pytest.approx([1.0] * (len(devices) - 1))
    assert found.last_that_pays.devices == max(devices)
    assert found.first_that_does_not is None
    assert len({round(each.run.price / found.runs[0].run.price, 9) for each in found.runs}) == 1


@given(sizes, rates, works)
def test_perfect_weak_scaling_is_1(devices, rate, work):
    found = scale(run(n, n * rate, n * work) for n in devices)
    assert [each.weak for each in found.runs] == pytest.approx([1.0] * len(devices))


@given(sizes, rates, works, st.floats(0.001, 0.999))
def test_amdahls_law_is_found_again(devices, rate, work, serial):
    """T(N) = serial + (1 - serial) / N: against the smallest run each larger one is less efficient than the one before."""
    found = scale(run(n, rate / (serial + (1 - serial) / n), work) for n in devices)
    efficiencies = [each.strong for each in found.runs]
    assert efficiencies[0] == pytest.approx(1.0)
    assert efficiencies == sorted(efficiencies, reverse=True)
    least = min(devices)
    expected = [(serial * least + 1 - serial) / (serial * n + 1 - serial) for n in sorted(devices)]
    assert efficiencies == pytest.approx(expected)


@given(sizes, st.lists(rates, min_size=8, max_size=8), works, st.floats(1e-3, 1e3), st.randoms())
def test_neither_order_nor_unit_changes_the_answer(devices, some, work, factor, random):
    runs = [run(n, rate, work) for n, rate in zip(devices, some, strict=False)]
    other = [run(each.devices, each.rate * factor, work) for each in runs]
    random.shuffle(other)
    one, two = scale(runs), scale(other)
    assert [each.strong for each in two.runs] == pytest.approx([each.strong for each in one.runs])
    assert [gain.gain for gain in two.gains] == pytest.approx([gain.gain for gain in one.gains], rel=1e-6, abs=1e-6)


@given(sizes, st.lists(rates, min_size=8, max_size=8), works)
def test_the_gains_add_up_to_the_rate_of_the_largest(devices, some, work):
    runs = [run(n, rate, work) for n, rate in zip(devices, some, strict=False)]
    found = scale(runs)
    first, last = found.runs[0].run, found.runs[-1].run
    brought = sum(gain.gain * (gain.after.devices - gain.before.devices) for gain in found.gains)
    assert (first.devices + brought) * first.per_device == pytest.approx(last.rate, rel=1e-6, abs=1e-6 * max(some))


def test_the_step_that_does_not_pay():
    found = scale([run(8, 800, 64), run(16, 1500, 64), run(32, 2200, 64), run(64, 2300, 64)])
    assert [round(gain.gain, 3) for gain in found.gains] == [0.875, 0.438, 0.031]
    assert (found.last_that_pays.devices, found.first_that_does_not.after.devices) == (16, 32)
    assert scale([each.run for each in found.runs], pays=0.4).last_that_pays.devices == 32


def test_a_dip_ends_what_pays_even_if_a_later_step_is_good():
    found = scale([run(1, 10, 4), run(2, 10, 4), run(4, 40, 4)])
    assert found.last_that_pays.devices == 1


def test_only_runs_of_the_same_work_are_compared():
    found = scale([run(1, 10, 32), run(2, 18, 32), run(2, 19, 64), run(4, 37, 128)])
    assert [each.strong for each in found.runs] == [1.0, pytest.approx(0.9), None, None]
    assert [each.weak for each in found.runs] == [1.0, None, pytest.approx(0.95), pytest.approx(0.925)]
    assert found.kind == "weak"


def test_unknown_work_gives_no_efficiency_unless_the_user_says_the_kind():
    runs = [run(1, 10), run(2, 18)]
    found = scale(runs)
    assert [(each.strong, each.weak) for each in found.runs] == [(None, None)] * 2
    assert (found.kind, found.last_that_pays) == (None, None)
    assert "not in the log of run1, run2" in found.notes[0]
    assert [each.weak for each in scale(runs, kind="weak").runs] == [1.0, pytest.approx(0.9)]


def test_rows_are_not_compared_with_tokens():
    one, other = run(1, 10, 32), Measured(name="b", devices=2, rate=20, unit="tokens", work=32, work_unit="tokens")
    assert scale([one, other]).kind is None


def test_several_runs_of_one_size_count_by_their_median():
    found = scale([run(1, 9, 32), run(1, 10, 32), run(1, 20, 32), run(2, 20, 32)])
    assert found.runs[-1].strong == pytest.approx(1.0)
    assert len(found.gains) == 1


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([run(1, 10, 32)], "scaling needs two runs whose throughput and devices are known"),
        ([run(1, 10, 32), run(None, 10)], "runNone lacks a number of devices"),
        ([run(1, 10, 32), run(2, None)], "run2 lacks a throughput"),
        ([run(1, 10), Measured(name="b", devices=2, rate=1.0, unit="samples")], "count samples and tokens"),
    ],
)
def test_what_cannot_be_compared(runs, sentence):
    with pytest.raises(RequestError, match=sentence):
        scale(runs)


def make(work, job_id, devices, rate, rows=64):
    folder = rundir.make(work / job_id)
    entry = Entry(job_id=job_id, name="train", folder=str(folder.path), site="local", scheduler="local", submitted=0.0,
                  units_per_hour=float(devices), unit="device-hours")  # fmt: skip
    rundir.write_json(folder.job_file, {
        "job": {"name": "train", "partition": "local", "flavor": f"F{devices}"}, "launch": {"world_size": devices},
    })  # fmt: skip
    rundir.write_json(folder.path / "plan.json", {"global_batch_rows": rows})
    rundir.write_json(folder.accounting, {"state": "COMPLETED", "exit_codes": [0], "elapsed_seconds": 3600})
    line = "[Step {}/9] | Loss: 1.5 | Duration: 1.0 | Throughput: {:.2f} tokens/sec\n"
    (folder.logs / f"train-{job_id}-rank0.log").write_text("".join(line.format(n, rate) for n in range(1, 10)))
    rundir.note_submission(folder, entry, {})
    return str(folder.path)


@pytest.fixture
def three(work):
    return [make(work, "local-1", 1, 100.0), make(work, "local-2", 2, 190.0), make(work, "local-4", 4, 200.0)]


def said(*words):
    done = CliRunner().invoke(main, ["scale", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_by_run_folders(three):
    values = json.loads(said(*three, "--json"))
    assert (values["kind"], values["last_that_pays"]["devices"], values["first_that_does_not"]["devices"]) == (
        "strong",
        2,
        4,
    )
    assert [each["strong_efficiency"] for each in values["runs"]] == pytest.approx([1.0, 0.95, 0.5])
    assert [each["flavor"] for each in values["runs"]] == ["F1", "F2", "F4"]
    assert values["runs"][1]["billing_units_per_million"] == pytest.approx(2 / (190 * 3600) * 1e6)
    rows = list(csv.DictReader(io.StringIO(said(*three, "--csv"))))
    assert [row["strong_efficiency"] for row in rows] == ["1.0", "0.95", "0.5"]
    assert [row["weak_efficiency"] for row in rows] == [""] * 3
    text = said(*three)
    assert "95.0 %" in text
    assert "Up to 2 devices on 1 node more of them pay" in text


def test_the_plot_in_the_terminal(three):
    text = said(*three, "--plot")
    assert "(tokens/s) ^" in text
    assert text.count("o") >= 3
    assert "\x1b" not in text


def test_bare_logs_tell_their_ranks_and_batch(work):
    line = "[Step {}/9] | Loss: 1.5 | Duration: 1.0 | Throughput: {:.2f} tokens/sec\n"
    for ranks, rate in ((2, 100.0), (4, 180.0)):
        head = f"lumi-moai: data parallel over {ranks} ranks: global batch 32 is {32 // ranks} rows a rank\n"
        (work / f"{ranks}.log").write_text(head + "".join(line.format(n, rate) for n in range(1, 10)))
    values = json.loads(said("2.log", "4.log", "--json"))
    assert [each["strong_efficiency"] for each in values["runs"]] == pytest.approx([1.0, 0.9])
    assert [each["billing_units_per_million"] for each in values["runs"]] == [None, None]


@pytest.mark.parametrize(("name", "head"), [("a.png", b"\x89PNG\r\n\x1a\n"), ("a.svg", b"<svg")])
def test_the_picture(three, work, name, head):
    said(*three, "-o", name)
    assert (work / name).read_bytes().startswith(head)
    said(*three, "-o", name)
    (work / name).write_bytes(b"somebody's picture")
    done = CliRunner().invoke(main, ["scale", *three, "-o", name])
    assert (done.exit_code, (work / name).read_bytes()) == (1, b"somebody's picture")
    assert "replace it with --force" in done.stderr
    said(*three, "-o", name, "--force")
    assert (work / name).read_bytes().startswith(head)


def test_every_chunk_of_a_png_has_its_sum(three, work):
    said(*three, "-o", "a.png")
    data, place, kinds = (work / "a.png").read_bytes(), 8, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body, found = data[place + 4 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        assert zlib.crc32(body).to_bytes(4, "big") == found
        kinds.append(body[:4])
        place += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[1] == b"tEXt"
    assert kinds[-1] == b"IEND"


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.html"])
def test_another_ending_is_refused(three, name):
    done = CliRunner().invoke(main, ["scale", *three, "-o", name])
    assert done.exit_code == 1
    assert "ends in neither .png nor .svg" in done.stderr


@pytest.mark.parametrize(("library", "words"), [("vl_convert", ["-o", "a.png"]), ("plotille", ["--plot"])])
def test_a_missing_library_is_a_sentence(three, monkeypatch, library, words):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    done = CliRunner().invoke(main, ["scale", *three, *words])
    assert done.exit_code == 1
    assert "pip install 'lumi-moai[report]'" in done.stderr
