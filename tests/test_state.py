"""The choice of `switch-model`: one file, safe under two writers, and what happens when it is torn."""

import json
import subprocess
import sys

import pytest

from lumi_moai import state
from lumi_moai.errors import RunError


def test_nothing_chosen_yet():
    assert state.chosen("lumi") is None


def test_each_site_has_its_own_choice():
    assert state.choose("lumi", "8xLarge") is None
    assert state.choose("local", "Small") is None
    assert (state.chosen("lumi"), state.chosen("local"), state.chosen("delta")) == ("8xLarge", "Small", None)


def test_it_is_one_file():
    state.choose("lumi", "8xLarge")
    files = [path.name for path in state.state_file().parent.iterdir() if not path.name.startswith(".")]
    assert files == ["state.json"]
    assert json.loads(state.state_file().read_text()) == {"schema": 1, "chosen": {"lumi": "8xLarge"}}


def test_many_writers_lose_nothing():
    """Twelve processes write a site each at once: a read-modify-write without the lock would lose some."""
    script = "import sys; from lumi_moai import state; state.choose(sys.argv[1], 'Small')"
    sites = [f"site{number}" for number in range(12)]
    writers = [subprocess.Popen([sys.executable, "-c", script, site]) for site in sites]
    assert [writer.wait() for writer in writers] == [0] * len(sites)
    assert {site: state.chosen(site) for site in sites} == dict.fromkeys(sites, "Small")


TORN = ['{"schema": 1, "chosen": {"lu', "", "garbage", "[]", '{"chosen": 3}', '{"chosen": {"lumi": 3}}', "{}", '"text"']


@pytest.mark.parametrize("text", TORN)
def test_a_torn_file_is_one_clear_sentence(text):
    state.state_file().parent.mkdir(parents=True)
    state.state_file().write_text(text)
    with pytest.raises(RunError) as caught:
        state.chosen("lumi")
    sentence = str(caught.value)
    assert str(state.state_file()) in sentence
    assert "switch-model" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("text", TORN)
def test_a_torn_file_is_kept_aside(text):
    state.state_file().parent.mkdir(parents=True)
    state.state_file().write_text(text)
    kept = state.choose("lumi", "Large")
    assert kept is not None
    assert kept.read_text() == text
    assert state.chosen("lumi") == "Large"
    assert state.choose("lumi", "Small") is None


def test_two_torn_files_are_both_kept():
    state.state_file().parent.mkdir(parents=True)
    kept = []
    for text in ("first", "second"):
        state.state_file().write_text(text)
        kept.append(state.choose("lumi", "Large"))
    assert [path.read_text() for path in kept] == ["first", "second"]


def test_binary_rubbish():
    state.state_file().parent.mkdir(parents=True)
    state.state_file().write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="torn"):
        state.chosen("lumi")


def test_a_place_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match="cannot be written"):
        state.choose("lumi", "Small")
