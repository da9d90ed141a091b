"""The report in a headless Chromium: nothing fetched, nothing complained of, drawn, by keyboard, light, dark, printed."""

import os
import zlib

import pytest
from browser import opened, program
from click.testing import CliRunner

from lumi_moai import rundir
from lumi_moai.cli import main
from lumi_moai.rundir import Entry
from lumi_moai.samples import Line, format_line

EVIL = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
LINE = "[Step {}/400] | Loss: {:.4f} | Duration: 1.0 | Throughput: {:.2f} tokens/sec\n"
DRAWN = (
    "[...document.querySelectorAll('.chart')].every((each) => !each.offsetParent || each.classList.contains('drawn'))"
)
STEPS = [*range(1, 201), *range(180, 401)]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if program() is None:
        reason = "NOT TESTED IN A BROWSER: there is no Chromium; run tests/lab/install.sh as root"
        pytest.fail(reason) if os.environ.get("LUMI_MOAI_REQUIRE_LAB") == "1" else pytest.skip(reason)
    with opened(tmp_path_factory.mktemp("browser")) as found:
        yield found


def make_run(path, job_id, devices, rate):
    folder = rundir.make(path)
    entry = Entry(job_id=job_id, name=EVIL, folder=str(path), site="local", scheduler="local", submitted=0.0,
                  units_per_hour=2.0, unit="device-hours")  # fmt: skip
    rundir.write_json(folder.job_file, {
        "job": {"name": EVIL, "flavor": EVIL, "command": ["train.py", EVIL]}, "launch": {"world_size": devices},
    })  # fmt: skip
    rundir.write_json(folder.path / "plan.json", {"global_batch_rows": 64, "moai": EVIL})
    rundir.write_json(folder.passport, {"commit": EVIL, "packages": {EVIL: EVIL}})
    rundir.write_json(
        folder.accounting, {"state": "FAILED", "exit_codes": [1], "elapsed_seconds": 3600, "reason": EVIL}
    )
    rundir.write_json(folder.certificates / f"{job_id}-r0.json", {
        "verdict": "right", "faults": [], "remarks": [EVIL], "rows": [{"rank": 0, "host": EVIL, "cores": [0], "device": 0}],
    })  # fmt: skip
    memory = "lumi-moai: [Step {}] | Duration: 0.4 | Throughput: 512.00 tokens/sec | Memory: {} GiB\n"
    text = "".join(memory.format(n, 12 + n / 100) for n in (1, 10, 50)) + f"Loss: {EVIL}\n"
    text += "".join(LINE.format(n, 1 + 9 / n, rate + n % 7) for n in STEPS)
    (folder.logs / f"train-{job_id}-rank0.log").write_text(f"{text}RuntimeError: {EVIL}\n")
    rundir.note_submission(folder, entry, {})
    return str(path)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    work = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(work / "state"))
        runs = [make_run(work / "a", "local-1", 1, 1000.0), make_run(work / "b", "local-2", 4, 3000.0)]
        done = CliRunner().invoke(main, ["report", *runs, "-o", str(work / "report.html")])
    assert done.exit_code == 0, done.output
    return work / "report.html"


def looks(folder, job_id):
    """A look at one node of four packages every ten seconds, and a requeue after half of the steps that are logged."""
    log = folder.logs / f"train-{job_id}-rank0.log"
    ends = [place + 1 for place, letter in enumerate(log.read_bytes()) if letter == 10]
    for number, end in enumerate(ends):
        again = number > len(ends) // 2
        yield Line(
            time=1e9 + 10 * number + 900 * again, node="n1", start=f"r{int(again)}", source=EVIL, per_package=2,
            devices=tuple(range(8)), memory_used_mib=(30_000.0 + number,) * 8, utilisation_percent=(99.0,) * 8,
            memory_total_mib=(65520.0,) * 8, power_watts=(400.0 + number % 50, None) * 4, log=log.name, log_bytes=end,
        )  # fmt: skip


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """The report on a run whose devices were looked at."""
    work = tmp_path_factory.mktemp("timed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(work / "state"))
        folder = rundir.RunFolder(work / "a")
        run = make_run(folder.path, "local-1", 8, 1000.0)
        folder.samples.mkdir()
        lines = list(looks(folder, "local-1"))
        (folder.samples / "local-1-n1.jsonl").write_text("".join(map(format_line, lines)))
        os.utime(folder.logs / "train-local-1-rank0.log", (lines[-1].time, lines[-1].time))
        done = CliRunner().invoke(main, ["report", run, "-o", str(work / "report.html")])
    assert done.exit_code == 0, done.output
    return work / "report.html"


def show(tab, report, scheme="light", kind=""):
    tab.media(scheme, kind)
    tab.size(1100)
    tab.open(report)
    tab.until(DRAWN)


def test_nothing_is_fetched_and_nothing_complained_of(tab, report):
    show(tab, report)
    assert tab.evaluate("document.querySelectorAll('.chart').length") == 5
    assert tab.requests() == [report.as_uri()]
    assert tab.complaints() == []
    assert tab.evaluate("performance.getEntriesByType('resource').length") == 0


def test_nothing_from_a_log_or_a_name_runs(tab, report):
    show(tab, report)
    assert tab.evaluate("typeof window.pwned") == "undefined"
    assert tab.evaluate("document.images.length") == 0
    assert "<script>window.pwned=1</script>" in tab.evaluate("document.body.innerText")
    tab.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert tab.evaluate("typeof window.pwned") == "undefined"


def test_even_what_slipped_through_would_not_run(tab, report):
    """The policy stands behind the escaping: a script and a picture put in by force are stopped by the browser."""
    forced = report.with_name("forced.html")
    forced.write_text(report.read_text().replace("</h1>", f"</h1>{EVIL}"))
    show(tab, forced)
    assert tab.evaluate("document.images.length") == 1
    assert tab.evaluate("typeof window.pwned") == "undefined"
    assert "Content Security Policy" in str(tab.complaints())


def test_the_lines_are_where_the_values_are(tab, report):
    show(tab, report)
    for chart in tab.evaluate("[...document.querySelectorAll('.chart')].map((each) => each.id)"):
        box = f"document.querySelector('#{chart} svg').getBoundingClientRect()"
        assert tab.evaluate(f"{box}.width") > 900
        assert tab.evaluate(f"{box}.height") > 60
    stroke = "getComputedStyle(document.querySelector('#loss-chart .mark-line path')).stroke"
    assert tab.evaluate(stroke) == "rgb(0, 114, 178)"
    path = tab.evaluate("document.querySelector('#loss-chart .mark-line path').getAttribute('d')")
    heights = [float(point.split(",")[1]) for point in path.lstrip("M").split("L")]
    assert heights == sorted(heights), "the loss falls, so its line goes down"


def test_by_keyboard(tab, report):
    show(tab, report)
    reached = []
    for _ in range(60):
        tab.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"loss-chart", "throughput-0-chart", "scaling-chart", "memory-chart", "starts-chart", "SUMMARY"} <= set(
        reached
    )
    assert tab.evaluate("document.querySelector('.skip').getAttribute('href')") == "#main"
    tab.evaluate("document.getElementById('loss-chart').focus()")
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    outline = tab.evaluate("getComputedStyle(document.activeElement).outline")
    assert "3px" in outline
    assert "solid" in outline


def test_the_arrow_keys_read_the_values(tab, report):
    show(tab, report)
    tab.evaluate("document.getElementById('loss-chart').focus()")
    reading = "document.querySelector('#loss-chart .reading').textContent"
    tab.press("ArrowRight")
    assert tab.evaluate(reading).startswith("step 1: ")
    assert tab.evaluate(reading).endswith(": 10")
    tab.press("ArrowRight")
    assert tab.evaluate(reading).startswith("step 2: ")
    tab.press("End")
    assert tab.evaluate(reading).startswith("step 400: ")
    tab.until("document.querySelector('#loss-chart .mark-rule line') !== null")
    tab.press("Home")
    assert tab.evaluate(reading).startswith("step 1: ")
    assert tab.complaints() == []


def test_the_pointer_reads_a_value_and_names_stay_text(tab, report):
    show(tab, report)
    tab.evaluate("document.getElementById('throughput-0-chart').scrollIntoView({behavior: 'instant'})")
    place = "(({x, y, width, height}) => [x + width / 2, y + height / 2])(point.getBoundingClientRect())"
    points = "document.querySelectorAll('#throughput-0-chart .mark-symbol path')"
    x, y = tab.evaluate(f"(() => {{ const all = {points}, point = all[all.length - 30]; return {place} }})()")
    shown = "document.querySelector('#vg-tooltip-element.visible')"
    for step in (9, 3, 0):
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y + step)
    tab.until(f"{shown} !== null")
    words = tab.evaluate(f"{shown}.innerText")
    assert EVIL in words
    assert "undefined" not in words
    assert "tokens/s" in words
    assert tab.evaluate("document.images.length") == 0
    assert tab.complaints() == []


def luminance(color):
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_can_be_seen(tab, report, scheme):
    """WCAG 2.2 asks for 4.5 for text and 3 for lines."""
    show(tab, report, scheme)
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for words in ("h1", "figcaption", "nav a", "thead th", ".cards dt, td", "summary"):
        color = tab.evaluate(f"getComputedStyle(document.querySelector('{words}')).color")
        assert contrast(color, paper) >= 4.5, (words, color)
    for text in tab.evaluate("[...document.querySelectorAll('svg text')].map((each) => getComputedStyle(each).fill)"):
        assert contrast(text, paper) >= 4.5, text
    probe = "(n) => { const e = document.createElement('i'); e.style.color = `var(--line-${n})`; document.body.append(e); return getComputedStyle(e).color }"
    for number in range(1, 9):
        assert contrast(tab.evaluate(f"({probe})({number})"), paper) >= 3, number


def test_light_and_dark_differ_without_drawing_anew(tab, report):
    show(tab, report, "light")
    light = tab.picture()
    tab.media("dark")
    assert tab.picture() != light
    tab.media("light")
    assert (
        tab.evaluate("getComputedStyle(document.querySelector('#loss-chart .mark-line path')).stroke")
        == "rgb(0, 114, 178)"
    )


def test_on_paper(tab, report):
    show(tab, report, "dark")
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") >= 2
    text = b"".join(_streams(pdf))
    assert len(text) > 10_000
    tab.media("dark", "print")
    assert tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


def _streams(pdf):
    """The contents of a PDF's packed streams."""
    for part in pdf.split(b"stream\r\n" if b"stream\r\n" in pdf else b"stream\n")[1:]:
        try:
            yield zlib.decompressobj().decompress(part)
        except zlib.error:
            continue


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_page_is_wider_than_its_window(tab, report, width):
    tab.media()
    tab.size(width)
    tab.open(report)
    tab.until(DRAWN)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_charts_are_there_all_the_same(tab, report):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.media()
        tab.size(1100)
        tab.open(report)
        document = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        found = tab.call("DOM.querySelectorAll", nodeId=document, selector=".drawing > svg .mark-line path")["nodeIds"]
        assert len(found) >= 6
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


CLOCKS = ["memory-clock-chart", "power-chart", "utilisation-chart", "starts-clock-chart"]


def test_what_the_devices_did_is_drawn_over_the_clock(tab, timed):
    show(tab, timed)
    ids = tab.evaluate("[...document.querySelectorAll('.chart.drawn')].map((each) => each.id)")
    assert set(CLOCKS) <= set(ids)
    assert tab.evaluate("document.querySelectorAll('#power-chart .mark-line path').length") == 8, "4 packages, 2 starts"
    assert "start 2" in tab.evaluate("document.querySelector('#power-chart').textContent")
    tab.evaluate("document.getElementById('power-chart').focus()")
    tab.press("ArrowRight")
    reading = tab.evaluate("document.querySelector('#power-chart .reading').textContent")
    assert reading.startswith("minute 0")
    assert "devices 0+1: 4" in reading
    assert tab.complaints() == []
    assert tab.requests() == [timed.as_uri()]
    assert tab.evaluate("typeof window.pwned") == "undefined"


def test_the_axis_is_chosen_by_keyboard(tab, timed):
    show(tab, timed)
    seen = "(id) => document.getElementById(id).offsetParent !== null"
    assert tab.evaluate(f"['loss-chart', 'loss-clock-chart'].map({seen})") == [True, False]
    tab.evaluate("document.querySelector('#loss .steps').focus()")
    tab.press("ArrowRight")
    assert tab.evaluate("document.activeElement.className") == "clock"
    assert tab.evaluate(f"['loss-chart', 'loss-clock-chart'].map({seen})") == [False, True]
    tab.until("document.getElementById('loss-clock-chart').classList.contains('drawn')")
    assert tab.evaluate("document.querySelector('#loss-clock-chart svg').getBoundingClientRect().width") > 900
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "loss-clock-chart"
    tab.press("End")
    words = tab.evaluate("document.querySelector('#loss-clock-chart .reading').textContent")
    assert words.startswith("minute 8")
    assert tab.evaluate(f"['throughput-0-chart', 'throughput-0-clock-chart'].map({seen})") == [True, False]
    tab.evaluate("document.querySelector('#loss .clock').focus()")
    tab.press("ArrowLeft")
    assert tab.evaluate(f"['loss-chart', 'loss-clock-chart'].map({seen})") == [True, False]
    assert tab.complaints() == []


def test_the_choice_is_kept_on_paper_without_its_buttons(tab, timed):
    show(tab, timed, "light", "print")
    assert tab.evaluate("getComputedStyle(document.querySelector('.axis')).display") == "none"
    assert tab.evaluate("getComputedStyle(document.querySelector('.over-clock')).display") == "none"
    assert tab.evaluate("getComputedStyle(document.querySelector('.over-steps')).display") == "block"


def test_the_axis_is_chosen_without_scripts_too(tab, timed):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.media()
        tab.size(1100)
        tab.open(timed)
        document = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        wanted = "#loss-clock-chart .drawing > svg .mark-line path"
        assert tab.call("DOM.querySelectorAll", nodeId=document, selector=wanted)["nodeIds"]
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
