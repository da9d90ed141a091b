"""Documentation that fails when it lies: every command has help and a page, links lead somewhere, README commands exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lumi_moai.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def command(name):
    return main.get_command(click.Context(main), name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_every_option_too(name):
    found = command(name)
    assert found.help
    assert len(found.get_short_help_str(200)) > 20
    bare = [param.name for param in found.params if isinstance(param, click.Option) and not param.help]
    assert not bare


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page(name):
    titles = [path.read_text().splitlines()[0] for path in (ROOT / "docs").glob("*.md")]
    assert any(f"`{name}`" in title for title in titles), f"no page in docs/ has `{name}` in its title"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_a_page(name):
    text = "\n".join(path.read_text() for path in PAGES)
    options = {
        opt
        for param in command(name).params
        if isinstance(param, click.Option)
        for opt in param.opts
        if opt.startswith("--")
    }
    assert not {option for option in options if option not in text}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


def shown_commands():
    for path in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", path.read_text(), re.DOTALL):
            for line in block.splitlines():
                if match := re.match(r"(?:\$ )?lumi-moai ([a-z-]+)(.*)", line.strip()):
                    yield path.name, match[1], match[2].split("  #")[0].split(" | ")[0]


@pytest.mark.parametrize(("page", "name", "rest"), sorted(set(shown_commands())))
def test_shown_commands_exist_with_their_options(page, name, rest):
    assert name in COMMANDS, page
    known = {opt for param in command(name).params for opt in param.opts}
    words = shlex.split(rest.replace("[", " ").replace("]", " ").replace("|", " "))
    used = []
    for word in words:
        if name in ("submit", "render") and word.endswith(".py"):
            break  # what follows is the script's
        used += [word.split("=")[0]] if re.match(r"--?[a-z]", word) else []
    assert set(used) <= known, page


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_a_usage_error(name):
    done = CliRunner().invoke(main, [name, "--no-such-option"])
    assert done.exit_code == 2
    assert "No such option" in done.output


def test_a_wrong_command_names_the_right_one():
    done = CliRunner().invoke(main, ["sbmit"])
    assert done.exit_code == 2
    assert "did you mean 'submit'?" in done.output
