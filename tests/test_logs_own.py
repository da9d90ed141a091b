"""Formats that users write: what they may say, what is refused in one sentence, and a pattern that would never end."""

import io
import json
import threading
from contextlib import suppress

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import logs
from lumi_moai.catalog.formats import log_formats
from lumi_moai.cli import main
from lumi_moai.errors import ConfigError, LumiMoaiError, RunError
from lumi_moai.logs import own
from lumi_moai.logs.own import OwnFormat

MINE = r"""
pattern: 'at (?P<step>\d+)/(?P<total>\d+){also}: (?P<ms>{n}) msec'
also: ['loss is (?P<loss>{n})', '(?P<tokens>{n}) tok', 'ram (?P<mib>\d+)']
mark: 'at '
scope: per_device
"""
LINES = "".join(f"at {n}/9: {100 + n} msec, 1.5K tok, ram 2048, loss is {9 - n}.5e-1\n" for n in range(1, 5))


def test_a_pattern_in_the_users_folder_and_one_on_the_command_line(work, monkeypatch):
    (work / "x.log").write_text(LINES)
    (work / "mine.yaml").write_text(MINE)
    words = ["collect", "x.log", "--json"]
    found = json.loads(CliRunner().invoke(main, [*words, "--format", "mine.yaml"]).stdout)
    assert (found["format"], found["records"], found["last_step"], found["total_steps"]) == ("mine", 4, 4, 9)
    assert (found["loss_last"], found["step_seconds"], found["memory_gib"]) == (0.55, 0.103, 2.0)
    assert (found["throughput"]["median"], found["throughput"]["scope"]) == (1500, "per_device")
    (work / "formats").mkdir()
    (work / "formats" / "theirs.yaml").write_text(MINE)
    (work / "formats" / "torn.yaml").write_text("pattern: '('")
    monkeypatch.setenv("LUMI_MOAI_PATH", str(work))
    done = CliRunner().invoke(main, words)
    assert json.loads(done.stdout)["format"] == "theirs"
    assert done.stderr.startswith("Warning: a log format of yours is left out: ")
    assert "torn.yaml: pattern: '(' is no regular expression: missing )" in done.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (r"pattern: '(?P<step>\d+'", "is no regular expression: missing ), unterminated subpattern at position 0"),
        (r"pattern: '(?P<stepp>\d+)'", "the group 'stepp' is none of step, total, epoch, progress, loss, "),
        (r"pattern: '(?P<stepp>\d+)'", "did you mean 'step'?"),
        (r"pattern: '(?P<ms>\d+)'", "neither a group (?P<step>...) nor (?P<loss>...)"),
        (r"pattern: '(?P<step>\d*)'", "also fits an empty line"),
        ("pattern: 7", "neither a group"),
        ("pattern: [a]", "should be text, it is a list"),
        ("patern: a", "unknown key 'patern'; did you mean 'pattern'?"),
        ("{}", "missing key 'pattern'"),
        ("[1]", "should be a mapping"),
        ("pattern: '(?P<step>1)'\nscope: each", "scope: 'each' is none of total, per_device"),
        ("pattern: '(?P<step>1)'\nalso: ['(?P<loss>1)']", "the pattern has no {also}"),
        ("pattern: '(?P<step>1){also}'\nalso: ['(?P<step>1)']", "redefinition of group name 'step'"),
    ],
)
def test_mistakes_are_sentences(work, text, sentence):
    (work / "mine.yaml").write_text(text)
    (work / "x.log").write_text(LINES)
    done = CliRunner().invoke(main, ["collect", "x.log", "--format", "mine.yaml"])
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert "mine.yaml: " in done.stderr
    assert "Traceback" not in done.output


def test_a_pattern_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(own, "SECONDS", 0.2)
    endless = OwnFormat(name="endless", pattern=r"^(?:(?:a+)+)+(?P<step>\d+)!").format
    with pytest.raises(RunError, match="'endless' needs more than 0.2 s"):
        logs.read(io.BytesIO(b"a" * 60 + b"\n"), "x", [endless, *logs.FORMATS])


def test_a_log_is_read_in_a_thread_too():
    fine = OwnFormat(name="fine", pattern=r"at (?P<step>\d+)").format
    found = []
    reader = threading.Thread(target=lambda: found.append(logs.read(io.BytesIO(LINES.encode()), "x", [fine])))
    reader.start()
    reader.join()
    assert found[0].records == 4


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from([*"(?P<step>loss\\d+*{n})[]|^$", "(?P<step>", "{also}"])).map("".join)
)
def test_any_pattern_is_taken_or_refused(pattern):
    with suppress(LumiMoaiError):
        list(OwnFormat(name="x", pattern=pattern).format.rows(LINES.encode()))


def test_a_value_that_is_no_number_is_none():
    words = OwnFormat(name="words", pattern=r"(?P<step>\w+) (?P<loss>\S+) (?P<ms>\S+)").format
    (first, second) = logs.records(io.BytesIO(b"7 low 5\nx 1.5 slow\n"), [words])
    assert (first.step, first.loss, first.seconds) == (7, None, 0.005)
    assert (second.step, second.loss, second.seconds) == (None, 1.5, None)


def test_a_file_that_is_not_there(work):
    with pytest.raises(ConfigError, match=r"gone\.yaml cannot be read"):
        log_formats([work / "gone.yaml"])
