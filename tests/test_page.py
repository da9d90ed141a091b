"""The report's page: what stands on it, that everything from outside is text, and which files it replaces."""

import json
import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import rundir
from lumi_moai.cli import main
from lumi_moai.gather.stories import compared, stories
from lumi_moai.logs.series import Series, Start
from lumi_moai.report import Report
from lumi_moai.report.charts import Line, lines_chart, still
from lumi_moai.report.html import as_html
from lumi_moai.report.page import page
from lumi_moai.report.story import Story
from lumi_moai.rundir import Entry

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror=window.pwned=2>'\"&{{ 7 * 7 }}"
LINE = "[Step {}/9] | Loss: {} | Duration: 1.0 | Throughput: {:.2f} tokens/sec\n"
STEPS = [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]


def make_run(path, job_id, *, name="train", devices=2, rate=100.0):
    folder = rundir.make(path)
    entry = Entry(job_id=job_id, name=name, folder=str(path), site="local", scheduler="local", submitted=0.0,
                  units_per_hour=2.0, unit="device-hours")  # fmt: skip
    rundir.write_json(folder.job_file, {
        "job": {"name": name, "partition": "local", "flavor": f"F{devices}", "command": [f"{path}/code/train.py", EVIL]},
        "launch": {"world_size": devices},
        "estimate": {"billing_units": 4.0, "unit": "device-hours", "hours": 2.0, "nodes": 1, "devices": devices},
    })  # fmt: skip
    rundir.write_json(folder.path / "plan.json", {"global_batch_rows": 64, "moai": f"No PP {EVIL}"})
    rundir.write_json(
        folder.passport, {"lumi_moai": "0.1.0", "commit": "abc", "packages": {"torch": "2.6", EVIL: EVIL}}
    )
    rundir.write_json(folder.accounting, {"state": "COMPLETED", "exit_codes": [0], "elapsed_seconds": 3600})
    rows = [{"rank": rank, "host": EVIL, "cores": [rank], "device": rank} for rank in range(devices)]
    rundir.write_json(folder.certificates / f"{job_id}-r0.json", {
        "verdict": "right", "faults": [], "remarks": [EVIL], "rows": rows,
    })  # fmt: skip
    memory = "lumi-moai: [Step 1] | Duration: 0.4 | Throughput: 512.00 tokens/sec | Memory: 12.31 GiB\n"
    text = f"{EVIL}\n" + memory + "".join(LINE.format(n, 9 / n, rate) for n in STEPS)
    (folder.logs / f"train-{job_id}-rank0.log").write_text(text + f"Warning: {EVIL}\n")
    rundir.note_submission(folder, entry, {})
    return str(folder.path)


@pytest.fixture
def runs(work):
    return [make_run(work / "one", "local-1"), make_run(work / "two", "local-2", name=EVIL, devices=4, rate=180.0)]


class Seen(HTMLParser):
    """Text outside of scripts, ids, and the kinds of elements."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.attributes, self._inside = [], [], [], []
        self.feed(text)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag in ("script", "style", "svg"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.words.append(data)


def written(*words):
    done = CliRunner().invoke(main, ["report", *words])
    assert done.exit_code == 0, done.output
    return done


def test_what_stands_on_the_page(runs, work):
    written(runs[0], "-o", "r.html")
    seen = Seen((work / "r.html").read_text())
    for words in (
        "train (local-1)", "completed", "100 tokens/s", "2 device-hours", "flavor F2", "9 at step 1", "12.31 GiB",
        "Not recorded: there are no power readings of it", "2 starts in all", "right, 2 ranks certified",
        "train.py", "No PP", "abc", "2.6", "4 for 02:00:00", "50 %",
    ):  # fmt: skip
        assert words in seen.text, words
    ids = [value for _, name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {"loss", "throughput-0", "memory", "power", "starts", "bill", "binding", "environment"} <= set(ids)
    assert "scaling" not in ids


def test_every_chart_has_words_and_numbers(runs, work):
    written(*runs, "-o", "r.html")
    text = (work / "r.html").read_text()
    charts = re.findall(r'<div class="chart" [^>]*>', text)
    assert len(charts) == 5
    for chart in charts:
        assert 'tabindex="0"' in chart
        assert len(re.search(r'aria-label="([^"]*)"', chart)[1]) > 20
        described = re.search(r'aria-describedby="([^"]*)"', chart)[1]
        figure = text[text.index(f'<figcaption id="{described}"') :]
        assert "<table>" in figure[: figure.index("</section>")]


def test_several_runs_are_compared(runs):
    told = stories(runs)
    assert [each.strong for each in compared(told).runs] == [1.0, pytest.approx(0.9)]
    (found,) = [section for section in page(told, compared(told)).sections if section.id == "scaling"]
    assert "Strong scaling" in found.sentences[0] if found.sentences else found.figures[0].sentences[0]
    assert compared(told[:1]) is None


def test_everything_from_outside_is_text(runs, work):
    log = work / "<script>alert(1)<img src=x>.log"
    log.write_text("".join(LINE.format(n, 1.5, 100) for n in range(1, 9)) + f"RuntimeError: {EVIL}\n")
    written(*runs, log.name, "-o", "r.html")
    text = (work / "r.html").read_text()
    seen = Seen(text)
    scripts = [value for tag, name, value in seen.attributes if (tag, name) == ("script", "type")]
    assert seen.tags.count("script") == 2 + len(scripts)
    assert set(scripts) == {"application/json"}
    assert "img" not in seen.tags
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in seen.text
    outside = {value for _, name, value in seen.attributes if name in ("src", "href") and not value.startswith("#")}
    assert not outside


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_name_leaves_its_specification(name, other):
    """The specifications lie in the page as JSON; whatever a run is called, the reader gets the same values back."""
    spec = lines_chart([Line(name=name, points=((1, 2.0), (2, 1.0)))], x="step", y=other, zero=False)
    from jinja2 import Environment

    shown = Environment(autoescape=True).from_string("{{ spec | tojson }}").render(spec=spec)
    assert "<" not in shown
    assert json.loads(shown)["data"]["values"][0]["run"] == name
    assert still(spec)["layer"] != spec["layer"]


@given(st.text(min_size=1, max_size=30), st.lists(st.tuples(st.integers(0, 99), st.floats(-1e9, 1e9)), max_size=5))
def test_any_story_makes_a_page(name, points):
    start = Start(first_step=0, last_step=99, records=len(points), loss=tuple(points), broken=1)
    story = Story(report=Report(name=name, outcome="unknown"), series=Series(starts=(start,)), rows=({"cores": "x"},))
    assert page([story]).sections
    assert page([story, story]).sections


@given(
    st.lists(st.tuples(st.integers(0, 10**15), st.floats(allow_nan=False, allow_infinity=False)), min_size=1),
    st.booleans(),
)
def test_any_values_make_a_specification_that_a_browser_reads(points, zero):
    """JSON has no infinity, and a page with one would show no chart."""
    spec = lines_chart([Line(name="a", points=tuple(points))], x="step", y="loss", zero=zero)
    json.dumps(spec, allow_nan=False)
    low, high = spec["encoding"]["y"]["scale"]["domain"]
    for value in spec["data"]["values"]:
        rounded = 1e-5 * abs(value["y"])
        assert low - rounded <= value["y"] <= high + rounded


def test_jobs_of_an_accounting_file_are_runs_of_their_own(work):
    header = "JobID|JobName|State|ExitCode|Partition|Account|ElapsedRaw|AllocTRES|NNodes|MaxRSS|Start|End|Reason"
    line = "{}|train|COMPLETED|0:0|standard-g|p|1800|billing=448,cpu=224,gres/gpu=16,mem=960G,node=2|2||2026-01-01T00:00:00||None"
    (work / "sacct.txt").write_text("\n".join([header, line.format(17), line.format(18)]) + "\n")
    told = stories(["sacct.txt"])
    assert [story.title for story in told] == ["train (17)", "train (18)"]
    written("sacct.txt", "--site", "lumi", "-o", "r.html")
    text = Seen((work / "r.html").read_text()).text
    assert "train (18)" in text
    assert "4 GPU-hours" in text


def test_what_cannot_be_read_is_left_out_with_a_sentence(runs, work):
    done = written("nothing", runs[0], "-o", "r.html")
    assert "Warning: there is no run 'nothing' among yours" in done.stderr
    text = Seen((work / "r.html").read_text()).text
    assert "there is no run 'nothing' among yours" in text
    assert "train (local-1)" in text
    done = CliRunner().invoke(main, ["report", "nothing", "neither", "-o", "none.html"])
    assert (done.exit_code, (work / "none.html").exists()) == (1, False)


def test_a_run_has_one_colour_in_all_charts(work):
    (work / "no-loss.log").write_text("[Step 1/9] | Throughput: 5.00 tokens/sec\n" * 3)
    (work / "loss.log").write_text("".join(LINE.format(n, 1.5, 100) for n in range(1, 9)))
    sections = {section.id: section for section in page(stories(["no-loss.log", "loss.log"])).sections}
    scales = [sections[name].figures[0].spec["encoding"]["color"] for name in ("loss", "throughput-0")]
    assert scales[0]["scale"] == scales[1]["scale"]
    assert (scales[0]["legend"]["values"], scales[1]["legend"]["values"]) == (["loss.log"], ["no-loss.log", "loss.log"])


def test_losses_that_are_no_numbers_are_said(work):
    (work / "nan.log").write_text("".join(LINE.format(n, "nan", 100) for n in range(1, 9)))
    sections = {section.id: section for section in page(stories(["nan.log"])).sections}
    assert sections["loss"].sentences == ("nan.log: not a number in 8 lines.",)


def test_logs_are_called_by_their_names_where_that_is_enough(work):
    for folder in "ab":
        (work / folder).mkdir()
        (work / folder / "x.log").write_text(LINE.format(1, 1.5, 100))
    (work / "b" / "y.log").write_text(LINE.format(1, 1.5, 100))
    assert [story.title for story in stories(["a/x.log", "b/y.log"])] == ["x.log", "y.log"]
    assert [story.title for story in stories(["a/x.log", "b/x.log"])] == ["a/x.log", "b/x.log"]


SCRIPT = """
import os, time
world = int(os.environ["WORLD_SIZE"])
if os.environ["RANK"] == "0":
    print("global batch size: 32")
    for step in range(1, 9):
        print(f"[Step {step}/8] | Loss: {4 / step:.4f} | Duration: 1.0 | Throughput: {100 * world ** 0.5:.2f} tokens/sec")
"""


def test_real_runs_on_this_machine(work, monkeypatch):
    """Two runs that were really submitted, by their job ids."""
    import lumi_moai

    monkeypatch.setenv("LUMI_MOAI_SITE", "local")
    (work / "train.py").write_text(SCRIPT)
    runs = [lumi_moai.submit("train.py", flavor=flavor) for flavor in ("Small", "Large")]
    assert {run.wait(seconds=120) for run in runs} == {"COMPLETED"}
    done = CliRunner().invoke(main, ["scale", *(run.job_id for run in runs), "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert (values["kind"], [each["devices"] for each in values["runs"]]) == ("strong", [1, 4])
    assert [each["strong_efficiency"] for each in values["runs"]] == pytest.approx([1.0, 0.5])
    assert values["runs"][1]["billing_units_per_hour"] == pytest.approx(4.0)
    written(*(run.job_id for run in runs), "-o", "r.html")
    text = Seen((work / "r.html").read_text()).text
    for words in ("Strong scaling", "Small", "Large", "4 at step 1", "50.0 %", "rank", "not bound here", "train.py"):
        assert words in text, words


def test_a_million_steps_make_a_small_file(work):
    with open(work / "long.log", "w") as file:
        file.writelines(LINE.format(n, 9.0 if n == 70_000 else 1 + n % 7 / 10, 100 + n % 13) for n in range(1, 100_001))
    written("long.log", "-o", "r.html")
    text = (work / "r.html").read_text()
    specs = sum(len(found) for found in re.findall(r'<script type="application/json".*?</script>', text))
    assert specs < 200_000
    assert '"x":70000,"y":9.0' in text
    assert len(text) < 1_500_000


def test_what_is_not_there_is_said(work):
    (work / "a.log").write_text("no steps here\n")
    written("a.log", "-o", "r.html")
    text = Seen((work / "r.html").read_text()).text
    for words in ("No loss is in the log", "No throughput is in the log", "Not recorded: no log prints it",
                  "a log alone does not say what a run cost", "Not recorded: there is no run folder"):  # fmt: skip
        assert words in text


def test_json_says_what_was_written(runs, work):
    values = json.loads(written(runs[0], "-o", "r.html", "--json").stdout)
    assert values == {"file": "r.html", "bytes": (work / "r.html").stat().st_size, "runs": ["train (local-1)"]}


def test_only_our_own_file_is_replaced(runs, work):
    written(runs[0], "-o", "r.html")
    written(runs[0], "-o", "r.html")
    (work / "r.html").write_text("<html>my thesis</html>")
    done = CliRunner().invoke(main, ["report", runs[0], "-o", "r.html"])
    assert (done.exit_code, (work / "r.html").read_text()) == (1, "<html>my thesis</html>")
    assert "is not a file that lumi-moai wrote" in done.stderr
    written(runs[0], "-o", "r.html", "--force")
    assert "lumi-moai report" in (work / "r.html").read_text()
    assert not list(work.glob(".r.html*"))


@pytest.mark.parametrize(
    ("output", "sentence"), [("no/r.html", "lies in a folder that does not exist"), (".", "is a folder")]
)
def test_where_it_cannot_be_written(runs, output, sentence):
    done = CliRunner().invoke(main, ["report", runs[0], "-o", output])
    assert done.exit_code == 1
    assert sentence in done.stderr


def test_a_report_may_be_read_by_whom_the_umask_lets(runs, work):
    written(runs[0], "-o", "r.html")
    (work / "plain").touch()
    assert (work / "r.html").stat().st_mode == (work / "plain").stat().st_mode


def test_a_missing_library_is_a_sentence(runs, work, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    done = CliRunner().invoke(main, ["report", runs[0], "-o", "r.html"])
    assert done.exit_code == 1
    assert "pip install 'lumi-moai[report]'" in done.stderr
    assert not (work / "r.html").exists()


def test_the_policy_names_our_scripts_by_their_sums(runs, work):
    from base64 import b64encode
    from hashlib import sha256

    text = as_html(page(stories(runs[:1])))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "eval" not in policy
