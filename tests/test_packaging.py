"""The wheel holds all that a checkout holds, and an installed copy finds its own files."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel built from a clean copy, as `python -m build` does it."""
    import shutil

    copy = tmp_path_factory.mktemp("source") / "lumi-moai"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "lumi-moai-runs"))
    out = copy / "dist"
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)],
        check=True, capture_output=True,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    return built


def files_of(kind):
    suffix = {"templates": ".j2", "configs": ".yaml"}[kind]
    return {f"lumi_moai/{path.relative_to(ROOT)}" for path in (ROOT / kind).rglob("*") if path.suffix == suffix}


@pytest.mark.parametrize("kind", ["templates", "configs"])
def test_the_wheel_holds_the_top_level_folders(wheel, kind):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(f"lumi_moai/{kind}/")}
    assert inside == files_of(kind)
    strays = {path for path in (ROOT / kind).rglob("*") if path.is_file()} - {
        ROOT / n.removeprefix("lumi_moai/") for n in inside
    }
    assert not strays, "a file there would be left out of the wheel"


def test_every_package_is_listed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split()) - {"lumi_moai.templates", "lumi_moai.configs"}
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lumi_moai").rglob("__init__.py")}
    assert listed == there


def test_an_installed_copy_finds_its_files(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    probe = "from lumi_moai import catalog; print(len(catalog.flavors()), catalog.site('lumi').title)"
    done = subprocess.run(
        [sys.executable, "-c", probe], env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}, cwd="/",
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["13", "LUMI"]
