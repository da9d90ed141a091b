"""Layers of settings, their origins, and how a host finds its site."""

import pytest

from lumi_moai import catalog
from lumi_moai.catalog.settings import resolve_site, settings
from lumi_moai.errors import ConfigError


@pytest.fixture
def user_file(own_world):
    folder = own_world / ".config/lumi-moai"
    folder.mkdir(parents=True)
    return folder / "config.yaml"


def test_later_layers_win(user_file, work, monkeypatch):
    user_file.write_text("account: project_462000001\ntime: 12:00:00\nlauncher: torchrun\nenv: {A: u, B: u}\n")
    (work / "lumi-moai.yaml").write_text("time: 2h\nenv: {B: p}\n")
    monkeypatch.setenv("SBATCH_ACCOUNT", "project_462000002")
    found = settings({"time": "3h", "env": {"C": "c"}, "site": None})
    assert (found["account"].value, found["account"].origin) == ("project_462000002", "environment SBATCH_ACCOUNT")
    assert (found["time"].value, found["time"].origin) == ("3h", "command line")
    assert found["launcher"].origin == f"user file {user_file}"
    assert found["binding"].origin == "bundled"
    assert {name: text for name, (text, _) in found["env"].value.items()} == {"A": "u", "B": "p", "C": "c"}
    assert found["env"].value["B"][1].startswith("project file")


def test_our_own_variable_beats_slurms(monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "project_462000002")
    monkeypatch.setenv("LUMI_MOAI_ACCOUNT", "project_462000003")
    assert settings({})["account"].value == "project_462000003"


def test_all_mistakes_of_a_file_in_one_go(user_file):
    user_file.write_text("acount: x\ntime: 720\nenv: [1]\n")
    with pytest.raises(ConfigError) as error:
        settings({})
    said = str(error.value)
    assert "unknown setting 'acount'; did you mean 'account'?" in said
    assert "time: 720 should be text" in said
    assert "env:" in said
    assert said.count(str(user_file)) == 3


def test_a_choice_that_is_none(monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_BINDING", "strickt")
    with pytest.raises(
        ConfigError, match=r"LUMI_MOAI_BINDING: binding 'strickt' is none of strict, warn; did you mean"
    ):
        settings({})


def test_without_any_sign_it_is_local(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert resolve_site().name == "local"


def site_file(own_world, recognise):
    folder = own_world / ".config/lumi-moai/sites"
    folder.mkdir(parents=True)
    text = (catalog.folders("sites")[-1] / "local.yaml").read_text()
    (folder / "desk.yaml").write_text(text.replace("recognise: {}", f"recognise: {recognise}"))


def test_a_site_is_recognised_by_a_variable(own_world, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    site_file(own_world, "{environment: {SYSTEM: desk}}")
    assert resolve_site().name == "local"
    monkeypatch.setenv("SYSTEM", "desk")
    assert resolve_site().name == "desk"


def test_a_site_is_recognised_by_a_file(own_world, work, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    site_file(own_world, f"{{file: {work}/sign}}")
    assert resolve_site().name == "local"
    (work / "sign").touch()
    assert resolve_site().name == "desk"


def test_a_cluster_is_recognised_by_its_name(work, monkeypatch):
    """`scontrol` stands in for a cluster's; tests/lab asks the real one."""
    (work / "scontrol").write_text("#!/bin/bash\necho 'ClusterName             = lumi'\n")
    (work / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{work}:/usr/bin:/bin")
    assert resolve_site().name == "lumi"
    assert resolve_site("local").name == "local"
    monkeypatch.setenv("LUMI_MOAI_SITE", "local")
    assert resolve_site().name == "local"


def test_a_broken_site_that_nobody_uses_does_no_harm(own_world, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    folder = own_world / ".config/lumi-moai/sites"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("recognise: {custer: x}\nnodes: 3\n")
    assert resolve_site().name == "local"
    with pytest.raises(ConfigError, match="did you mean 'cluster'"):
        resolve_site("broken")
