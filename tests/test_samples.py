"""The looks at a run's nodes as history, when the steps of a log were logged, and both on the report's page."""

import io
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page import Seen, make_run, written
from test_record import looks

from lumi_moai import rundir
from lumi_moai.gather.samples import samples
from lumi_moai.gather.stories import stories
from lumi_moai.logs import FORMATS
from lumi_moai.logs.clock import MOST_MARKS, marks, over_clock, stamped, step_times
from lumi_moai.logs.series import read_series
from lumi_moai.report import Report
from lumi_moai.report.html import as_html
from lumi_moai.report.page import page
from lumi_moai.report.story import Story
from lumi_moai.rundir import RunFolder
from lumi_moai.samples import Line, format_line, history, spread
from lumi_moai.samples.history import BINS, MOST_STARTS

STEP = "[Step {}/9999] | Loss: {} | Duration: 1.0 | Throughput: 100.00 tokens/sec\n"
MOAI = next(each for each in FORMATS if each.mark in STEP.encode() and list(each.rows(STEP.format(1, 2.0).encode())))


def look(time, *, node="n1", start="r0", watts=(400.0, None), used=(1024.0, 2048.0), **more):
    return Line(
        time=time, node=node, start=start, source="rocm-smi", devices=tuple(range(len(used))), per_package=2,
        memory_used_mib=used, memory_total_mib=(65520.0,) * len(used), utilisation_percent=(50.0,) * len(used),
        power_watts=watts, **more,
    )  # fmt: skip


def test_a_package_is_one_track_and_its_power_is_counted_once():
    found = history([look(100.0), look(110.0), look(120.0)], 100.0, 120.0)
    (power,) = found.of("power")
    assert power.name == "n1:0+1"
    assert power.points == ((0.0, 400.0), (10.0, 400.0), (20.0, 400.0))
    assert found.kilowatt_hours == pytest.approx(400 * 20 / 3.6e6)
    assert [(track.name, track.points[0]) for track in found.of("memory")] == [
        ("n1:0", (0.0, 1.0)),
        ("n1:1", (0.0, 2.0)),
    ]
    assert (found.devices, found.nodes, found.sources, found.looks) == (2, ("n1",), ("rocm-smi",), 3)


def test_nobody_knows_what_was_drawn_between_two_starts():
    lines = [look(0.0), look(10.0), look(1000.0, start="r1"), look(1010.0, start="r1")]
    found = history(lines, 0.0, 1010.0)
    assert found.starts == (("r0", 0.0, 10.0), ("r1", 1000.0, 1010.0))
    assert found.kilowatt_hours == pytest.approx(400 * 20 / 3.6e6)
    assert [track.start for track in found.of("power")] == ["r0", "r1"]


def test_of_a_stretch_the_most_memory_and_the_mean_power():
    lines = [
        look(float(n), watts=(300.0 + 200.0 * (n % 2), None), used=(1024.0 * (n == 5000), 0.0)) for n in range(10_000)
    ]
    found = history(lines, 0.0, 9999.0)
    power, memory = found.of("power")[0], found.of("memory")[0]
    assert len(power.points) <= BINS
    assert all(abs(value - 400) < 6 for _, value in power.points)
    assert max(value for _, value in memory.points) == 1.0


def test_without_readings_there_is_no_power_and_no_energy():
    found = history([look(1.0, watts=(None, None))], 1.0, 1.0)
    assert found.of("power") == ()
    assert found.kilowatt_hours is None


@settings(deadline=None, max_examples=30)
@given(st.lists(looks(), max_size=8))
def test_any_looks_are_a_history_in_bounded_memory(lines):
    times = [line.time for line in lines]
    found = history(lines, min(times, default=0.0), max(times, default=0.0))
    assert found.looks <= len(lines)
    assert len(found.starts) <= MOST_STARTS
    for track in found.tracks:
        assert 0 < len(track.points) <= BINS
        assert list(track.points) == sorted(track.points)
        assert all(0 <= at <= found.seconds + 1e-6 for at, _ in track.points)
    for kind in {track.kind for track in found.tracks}:
        lines_of = spread(found.of(kind), max(found.seconds / BINS, 1.0))
        for least, mean, most in zip(lines_of["least"], lines_of["mean"], lines_of["most"], strict=True):
            for (_, low), (_, middle), (_, high) in zip(least, mean, most, strict=True):
                assert low - 1e-6 * abs(low) <= middle <= high + 1e-6 * abs(high)


def logged(times, every=10.0, last=None):
    """A log whose step n was written at times[n - 1], and its sizes as looks every *every* seconds see them."""
    lines = [STEP.format(n, 1.0 / n) for n in range(1, len(times) + 1)]
    sizes, at = [], 0.0
    while at < times[-1] + every:
        sizes.append((at, sum(len(line) for line, time in zip(lines, times, strict=True) if time <= at)))
        at += every
    return io.BytesIO("".join(lines).encode()), sizes


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 60.0), min_size=1, max_size=60))
def test_steps_are_timed_to_within_an_interval(gaps):
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    file, sizes = logged(times)
    (found,) = step_times(file, MOAI, marks(sizes)) or ((),)
    assert [step for step, _ in found] == sorted(step for step, _ in found)
    for step, seconds in found:
        assert abs(seconds - times[int(step) - 1]) <= 10.0 + 1e-6
    steps = [(float(n), 0.5) for n in range(1, len(times) + 1)]
    timed = over_clock(steps, found)
    assert len(timed) == len(steps)
    for (seconds, _), time in zip(timed, times, strict=True):
        assert abs(seconds - time) <= 10.0 + 1e-6


def test_the_last_words_of_a_killed_run_are_not_its_successors():
    text = "".join(STEP.format(n, 1.0) for n in (1, 2, 3, 4))
    more = "".join(STEP.format(n, 1.0) for n in (3, 4, 5))
    size = len(text) // 4
    sizes = [(0.0, 0), (10.0, size), (20.0, 2 * size), (5000.0, len(text)), (5010.0, len(text) + size),
             (5020.0, len(text + more))]  # fmt: skip
    first, second = step_times(io.BytesIO((text + more).encode()), MOAI, marks(sizes))
    assert first[-1][0] == 4
    assert 20.0 < first[-1][1] <= 40.0
    assert second[0][0] == 3
    assert 5000.0 < second[0][1] <= 5010.0


def test_a_log_that_was_cut_counts_from_then_on():
    assert [(mark.size, mark.first, mark.last) for mark in marks([(0, 0), (1, 50), (2, 90), (3, 20), (4, 20), (5, 60)])] == [
        (0, 0, 0), (20, 3, 4), (60, 5, 5)]  # fmt: skip
    assert len(marks([(float(n), n) for n in range(100_000)])) <= MOST_MARKS


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 5000)), max_size=30), st.binary(max_size=3000))
def test_any_sizes_and_any_log_have_times_or_none(sizes, data):
    text = data + STEP.format(1, 1.0).encode() + data + STEP.format(2, 1.0).encode()
    for part in step_times(io.BytesIO(text), MOAI, marks(sorted(sizes))):
        assert all(0 <= seconds <= 1e6 for _, seconds in part)


@pytest.mark.parametrize(
    "front",
    ["2024-05-10 {} - INFO - ", " [2024-05-10 {}] ", "[titan] 2024-05-10 {},123 - root - ", "[rank0]:2024-05-10 {},5 ", "2024-05-10T{}.123 | INFO | "],
)  # fmt: skip
def test_date_and_time_in_front_of_lines_are_a_clock(front):
    stamps = [f"{10 + n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}" for n in range(0, 3000, 30)]
    text = "".join(front.format(time) + STEP.format(n + 1, 1.0) for n, time in enumerate(stamps)).encode()
    (found,) = step_times(
        io.BytesIO(text), MOAI, stamped(io.BytesIO(text), len(text)), read_series(io.BytesIO(text)).rank
    )
    assert dict(found)[100.0] == pytest.approx(2970, abs=1)
    assert over_clock([(50.0, 0.0)], found)[0][0] == pytest.approx(49 * 30, abs=31)


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_a_log_without_times_has_no_clock(data):
    found = stamped(io.BytesIO(data), len(data))
    assert list(found) == sorted(found, key=lambda mark: mark.size)
    assert stamped(io.BytesIO(STEP.encode() * 50), 50 * len(STEP)) == ()


def with_samples(run, job_id, nodes=1, starts=1, **more):
    """Samples in the folder *run*: power of a package, memory of two devices, the log growing by a line each time."""
    folder = RunFolder(type(rundir.state_folder())(run))
    log = folder.logs / f"train-{job_id}-rank0.log"
    ends = [place for place, letter in enumerate(log.read_bytes()) if letter == 10]
    folder.samples.mkdir()
    for node in range(nodes):
        lines = [
            look(
                1e9 + 10 * n,
                node=f"nid{node}",
                start=f"r{n * starts // len(ends)}",
                log=log.name,
                log_bytes=end + 1,
                **more,
            )
            for n, end in enumerate(ends)
        ]
        (folder.samples / f"{job_id}-nid{node}.jsonl").write_text("".join(map(format_line, lines)))
    os.utime(log, (1e9 + 10 * len(ends), 1e9 + 10 * len(ends)))
    return folder


def test_what_stands_on_the_page(work):
    run = make_run(work / "one", "local-1")
    with_samples(run, "local-1", starts=2)
    written(run, "-o", "r.html")
    text = Seen((work / "r.html").read_text()).text
    for words in (
        "1 package: 400 W on average, from 400 to 400 W.", "2 devices: 1.5 GiB on average", "12.31 GiB",
        "Together 0.0133", "second 0 is 2001-09-09 01:46:40 UTC", "Start 1 from second 0", "the clock",
        "2 devices: 50 % on average", "by rocm-smi",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words
    assert "Not recorded: there are no power" not in text
    (story,) = stories([run])
    assert [len(times) > 1 for times in story.clock] == [True, True]


def test_sixteen_devices_are_most_mean_and_least(work):
    run = make_run(work / "one", "local-1")
    with_samples(run, "local-1", nodes=2, used=(1024.0,) * 8, watts=(400.0, None) * 4)
    (story,) = stories([run])
    names = {value["run"] for section in page([story]).sections if section.id == "memory"
             for value in section.figures[0].spec["data"]["values"]}  # fmt: skip
    assert names == {"most of 16 devices", "mean of 16 devices", "least of 16 devices"}
    assert "16 devices: 1 GiB on average" in as_html(page([story]))


def test_processes_have_no_sensor_and_the_page_says_so(work):
    run = make_run(work / "one", "local-1")
    folder = with_samples(run, "local-1", watts=(None, None))
    for path in folder.samples.iterdir():
        path.write_text(path.read_text().replace("rocm-smi", "processes"))
    written(run, "-o", "r.html")
    text = Seen((work / "r.html").read_text()).text
    assert "Not recorded: the run was looked at, but its ranks are processes on the CPU, which have no sensor." in text
    assert "Where the ranks run on the CPU, a device is a rank" in text


def test_bad_files_of_samples_hide_nothing_else(work):
    run = make_run(work / "one", "local-1")
    folder = with_samples(run, "local-1")
    whole, _ = samples(folder, "local-1", None)
    (good,) = folder.samples.iterdir()
    good.write_bytes(b"\xff\0torn{\n" + good.read_bytes() + b'{"time": 12')
    (folder.samples / "local-1-empty.jsonl").touch()
    (folder.samples / "local-1-long.jsonl").write_bytes(b"{" * 300_000)
    (folder.samples / "local-1-folder.jsonl").mkdir()
    (folder.samples / "local-12-other.jsonl").write_text(format_line(look(5.0)))
    (folder.samples / "local-1-list.jsonl").write_text(json.dumps([1, 2]) + "\n")
    found, _ = samples(folder, "local-1", None)
    assert found == whole
    assert found.looks > 5


def test_a_story_without_samples_says_not_recorded(work):
    run = make_run(work / "one", "local-1")
    (story,) = stories([run])
    assert (story.history.looks, story.clock) == (0, ())
    sections = {section.id: section for section in page([story]).sections}
    assert sections["power"].sentences[0].startswith("Not recorded: there are no power readings")
    assert "utilisation" not in sections
    assert all(figure.other is None for section in sections.values() for figure in section.figures)


@settings(deadline=None, max_examples=5)
@given(st.lists(looks(), min_size=1, max_size=5))
def test_any_history_is_a_page(lines):
    times = [line.time for line in lines]
    report = Report(name="r", outcome="completed")
    story = Story(report=report, history=history(lines, min(times), max(times)))
    assert "<main" in as_html(page([story]))
    assert "<main" in as_html(page([story, replace(story, label="two")]))


def test_letters_that_svg_cannot_hold_do_not_end_the_process(work):
    """The drawing library aborted at a log file called `a<backspace>.log` beside another one."""
    names = ["a\x08.log", "b\uffff.log"]
    for name in names:
        (work / name).write_text("".join(STEP.format(n, 1.0) for n in range(1, 5)))
    written(*names, "-o", "r.html")
    assert (work / "r.html").read_text().count("a\ufffd.log") >= 1
