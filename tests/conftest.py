"""Every test has a home, a state folder and an environment of its own; nothing of the tester's steers it."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_FOREIGN = ("SBATCH_", "SLURM_", "SRUN_", "SUBMITIT_", "LUMI_MOAI_", "MASTER_", "XDG_")
collect_ignore = ["scripts", "bench"]
"""Programs that tests and the bench run; looking for doctests in them would run them here."""
_KEPT = ("LUMI_MOAI_REQUIRE_LAB", "LUMI_MOAI_FUZZ_SECONDS", "LUMI_MOAI_FUZZ_SEED")


@pytest.fixture(autouse=True)
def own_world(tmp_path_factory, monkeypatch):
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and name not in _KEPT:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local" / "state"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")  # every rank would compile all of our files again
    return home


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
