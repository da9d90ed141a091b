"""The house rules: rooms look only down, the wing sees its few, the door opens fast, functions stay small."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lumi_moai"

# Ground floor first; a room may import those before it. `cli` is the door.
HOUSE = """
errors units resources site flavor plan workload usage step
binding billing cost planner scaling job
sacct sbatch queue render samples logs check report
slurm catalog rundir state monitor gather launch
cli
""".split()
WING = {"runtime", "errors", "units", "site", "binding", "plan", "workload", "step", "cost", "planner"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """The room that a file belongs to: its name, or the folder's."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms that *path* imports, also inside functions and for type checking."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level == depth:
                found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            assert node.level <= depth, f"{path}:{node.lineno} looks outside of the package"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lumi_moai"):
            found.add([*node.module.split("."), "__init__"][1])
    return found - {"__version__"}


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in ("runtime", "__init__")], ids=str)
def test_rooms_look_only_down(path):
    mine = room(path)
    below = set(HOUSE[: HOUSE.index(mine)]) | {mine}
    assert imported_rooms(path) <= below


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "runtime"], ids=str)
def test_the_wing_sees_its_few(path):
    assert imported_rooms(path) <= WING


def test_every_room_is_in_the_house():
    rooms = {room(path) for path in FILES} - {"__init__", "runtime"}
    assert rooms <= set(HOUSE)


def test_only_the_wing_imports_torch():
    importers = {
        room(path) for path in FILES if re.search(r"^\s*(import|from) torch\b", path.read_text(), re.MULTILINE)
    }
    assert importers <= {"runtime"}


def loaded_by(statement):
    probe = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_door_opens_fast():
    assert not {"torch", "submitit", "jinja2", "yaml", "rich"} & loaded_by("import lumi_moai.cli")


def test_help_of_every_command_opens_fast():
    statement = (
        "from lumi_moai.cli import COMMANDS, main; from click.testing import CliRunner; "
        "assert all(CliRunner().invoke(main, [c, '--help']).exit_code == 0 for c in COMMANDS)"
    )
    assert not {"torch", "submitit", "jinja2", "yaml", "vl_convert", "plotille", "tree_sitter"} & loaded_by(statement)


def test_rendering_reads_no_logs():
    probe = "import lumi_moai.launch.prepare, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert not {"lumi_moai.logs", "lumi_moai.report", "torch"} & set(done.stdout.split())


def test_the_package_itself_loads_nothing():
    assert not {"torch", "submitit", "jinja2", "yaml", "click"} & loaded_by("import lumi_moai")


@pytest.mark.parametrize(
    "name", ["errors", "units", "resources", "site", "flavor", "usage", "step", "binding", "billing", "job"]
)
def test_the_lower_floors_need_no_library(name):
    standard = set(sys.stdlib_module_names) | {"lumi_moai"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import lumi_moai.{name};"
         "print(*{m.split('.')[0] for m in sys.modules})"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert {module for module in done.stdout.split() if not module.startswith("_")} <= standard | {"sitecustomize"}


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.end_lineno - node.lineno + 1, f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"


def test_functions_stay_small():
    sizes = sorted(functions())
    assert sizes[-1][0] <= 60, sizes[-3:]
    assert statistics.median(size for size, _ in sizes) <= 8
    assert sizes[int(len(sizes) * 0.95)][0] <= 35, sizes[int(len(sizes) * 0.95) :]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_dataclass_is_frozen_and_nothing_is_asserted_or_caught_at_large(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for mark in node.decorator_list:
                assert "dataclass" not in ast.unparse(mark) or "frozen=True" in ast.unparse(mark), node.name
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("everything", "Exception") or broad_is_documented(path, node), f"{path}:{node.lineno}"


def broad_is_documented(path, node):
    """The one place: the rank that runs the user's script has to see whatever it raises."""
    return room(path) == "runtime" and "BLE001" in path.read_text().splitlines()[node.lineno - 1]


def cluster_words():
    """Partition names, product names and vendor variables of all bundled sites and devices."""
    from lumi_moai import catalog

    words = {"mi250", "mi300", "a100", "h100", "gh200", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
    for name in catalog.site_names():
        site = catalog.site(name)
        words |= {p for p in site.partitions if not p.isalpha()} | {v.name for v in site.environment}
        words |= {cache.variable for cache in site.caches}
    return words - {"OMP_NUM_THREADS"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_cluster_is_data(path):
    text = path.read_text()
    allowed = {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"}  # torch's own words, which the runtime checks on the node
    found = {word for word in cluster_words() - allowed if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)}
    assert not found
