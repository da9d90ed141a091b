"""`lumi-moai estimate`: flavors, options, anybody's batch scripts, jobs that ran, and what is left to spend."""

import json
import time
from contextlib import suppress

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import billing, catalog, gather, rundir, sbatch, state
from lumi_moai.cli import main
from lumi_moai.errors import RequestError
from lumi_moai.rundir import Entry
from lumi_moai.sbatch import Asked
from lumi_moai.units import format_gib, format_minutes

LUMI = catalog.site("lumi")
STABLE = ["billing_units", "unit", "hours", "partition", "nodes", "devices", "decided_by", "cheaper"]


def estimate(*words):
    done = CliRunner().invoke(main, ["estimate", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def price(*words, site="lumi"):
    done = estimate(*words, "--site", site, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words, site="lumi"):
    done = estimate(*words, "--site", site)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("Error: ")
    return done.stderr


def test_the_example_of_the_help():
    values = price("--flavor", "8xLarge", "--time", "24:00:00")
    assert list(values)[: len(STABLE)] == STABLE
    assert (values["billing_units"], values["unit"], values["hours"]) == (768.0, "GPU-hours", 24.0)
    assert (values["partition"], values["nodes"], values["devices"], values["decided_by"]) == (
        "standard-g",
        8,
        64,
        "nodes",
    )
    assert values["cheaper"] is None


def test_the_flavor_chosen_with_switch_model(own_world):
    state.choose("lumi", "Medium")
    values = price("--time", "24:00:00")
    assert (values["billing_units"], values["partition"]) == (24.0, "small-g")


@pytest.mark.parametrize(
    ("words", "units", "decided_by"),
    [
        (["-p", "standard-g", "-N", 4, "--time", "24:00:00"], 384, "nodes"),
        (["-p", "small-g", "-d", 2, "--time", "24:00:00"], 24, "devices"),
        (["-p", "small-g", "-d", 1, "--mem", "128G", "--time", "24:00:00"], 24, "memory"),
        (["-p", "standard", "-N", 16, "--time", "12:00:00"], 24576, "nodes"),
        (["-p", "small", "-c", 4, "--mem", "4G", "--time", "24:00:00"], 96, "cores"),
        (["-p", "small", "-c", 4, "--mem", "32G", "--time", "24:00:00"], 384, "memory"),
        (["-p", "small-g", "-d", 1, "-c", 14, "--mem", "60G", "--time", "60"], 1.0, "cores"),
        (["-p", "dev-g", "-d", 8, "-c", 56, "--mem", "480G", "--time", "60"], 4.0, "devices"),
        (["-p", "small-g", "-N", 2, "-d", 3, "-c", 21, "--mem", "180G", "--time", "60"], 3.0, "devices"),
    ],
)
def test_options(words, units, decided_by):
    values = price(*words)
    assert (values["billing_units"], values["decided_by"]) == (units, decided_by)


def test_the_cheaper_way_in_words():
    text = estimate("-p", "standard-g", "-d", 2, "--time", "1-00:00:00", "--site", "lumi").stdout
    assert "Price       96 GPU-hours (4 an hour), decided by nodes" in text
    assert "Cheaper     24 GPU-hours (75 % less) with partition small-g, 14 cores, 120G of memory in all" in text


def test_what_was_assumed_is_said():
    notes = price("-p", "small-g", "-d", 1)["notes"]
    assert any("64G a node is counted, the default in small-g" in note for note in notes)
    assert any("no time is asked for: 01:00:00 is counted" in note for note in notes)
    assert "so the site's default is counted" in price("-f", "Small")["notes"][0]


def test_what_slurm_will_refuse_is_said():
    notes = price("-p", "dev-g", "-N", 64, "-d", 8, "--mem", "480G", "--time", "24:00:00")["notes"]
    assert any("at most 03:00:00" in note for note in notes)
    assert any("32 nodes a job at most" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is nothing to estimate"),
        (["-f", "xlarg"], "did you mean 'xLarge'"),
        (["-f", "Small", "--time", "5-00:00:00"], "is over the limit"),
        (["-f", "Small", "-N", 2], "go with --partition"),
        (["-p", "smal-g", "-d", 1], "did you mean 'small-g'"),
        (["-p", "small-g", "-d", 9], "9 devices on a node are asked for, a node of partition small-g has 8"),
        (["-p", "small-g", "-c", 57], "57 cores on a node"),
        (["-p", "small-g", "--mem", "481G"], "481G of memory on a node"),
        (["-p", "small-g", "--mem", "lots"], "'lots' is not a memory size"),
        (["-p", "small-g", "-d", 1, "--time", "soon"], "'soon' is not a time"),
        (["nowhere"], "'nowhere' is neither a job or run of yours nor a file"),
        (["-f", "Small", "17"], "leave one of them out"),
        (["-N", 2], "go with --partition"),
    ],
)
def test_refusals(words, sentence):
    assert sentence in refused(*words)


def test_an_unknown_site():
    assert "there is no site 'lummi'; did you mean 'lumi'" in refused("-f", "Small", site="lummi")


# ---- batch scripts ---------------------------------------------------------------------------------------------

SCRIPT = """\
#!/bin/bash -l
#SBATCH -p small-g -N 2 --gpus-per-node=mi250:2   # two dies each
#SBATCH -t 1:00:00 --mem=120G

#SBATCH -c7 --ntasks-per-node 2
#SBATCH --job-name="a # b" -A project_465000001
## SBATCH --exclusive
#SBATCH --requeue
srun true
#SBATCH --nodes=4
"""


def test_a_script():
    asked = sbatch.read(SCRIPT)
    assert asked == Asked(
        partition="small-g", account="project_465000001", minutes=60, nodes=2, devices_per_node=2, memory_gib=120.0,
        cpus_per_task=7, tasks_per_node=2,
    )  # fmt: skip
    usage, notes = sbatch.usage(LUMI, asked)
    assert (usage.devices, usage.cores, usage.memory_gib, usage.hours) == (4, 28, 240.0, 1.0)
    assert notes == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--nodes=2-4", {"nodes": 4}),
        ("--gres=gpu:mi250:8", {"devices_per_node": 8}),
        ("--gres=gpu:3,tmp:9", {"devices_per_node": 3}),
        ("--gres gpu", {"devices_per_node": 1}),
        ("--gres=tmp:9", {}),
        ("-G 16", {"devices": 16}),
        ("--gpus=a100:16", {"devices": 16}),
        ("-G16", {"devices": 16}),
        ("--gpus-per-task=1 -n 8", {"devices_per_task": 1, "ntasks": 8}),
        ("--mem-per-gpu=60G", {"memory_gib_per_device": 60.0}),
        ("--mem-per-cpu=2000", {"memory_gib_per_cpu": 2000 / 1024}),
        ("--cpus-per-gpu=7", {"cpus_per_device": 7}),
        ("--exclusive", {"exclusive": True}),
        ("--exclusive=user --time 30", {"exclusive": True, "minutes": 30}),
        ("--array=0-15:4%2", {"array_tasks": 4}),
        ("-a 1,3,5-9", {"array_tasks": 7}),
        ("--partition=a,b", {"partition": "a"}),
        ("--time=2-12", {"minutes": 3600}),
        ("-H -s -p small-g", {"partition": "small-g"}),
        ("--mail-type ALL --mem 10G", {"memory_gib": 10.0}),
        ("--unknown-option value -N 3", {"nodes": 3}),
        ("--no-requeue", {}),
    ],
)
def test_spellings(line, expected):
    assert sbatch.read(f"#!/bin/sh\n#SBATCH {line}\n") == Asked(**expected)


@pytest.mark.parametrize("line", ["--nodes=$N", "--time=soon", "--mem=lots", "--gpus-per-node=mi250:x", "--array=a"])
def test_what_cannot_be_read_is_said(line):
    asked = sbatch.read(f"#SBATCH {line}\n")
    assert asked == Asked(notes=asked.notes)
    assert "cannot be read" in asked.notes[0]


def test_an_open_quote_and_a_heterogeneous_job():
    first, second = sbatch.read_parts("#SBATCH -N 2 -t 60 -p a --comment='x\n#SBATCH hetjob\n#SBATCH -N 4 -p b\n")
    assert (first.nodes, first.partition, first.minutes, "open quote" in first.notes[0]) == (2, "a", 60, True)
    assert (second.nodes, second.partition, second.minutes) == (4, "b", 60)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(partition="standard-g", nodes=2), (2, 16, 112, 960)),
        (Asked(partition="standard-g", devices=16), (2, 16, 112, 960)),
        (Asked(partition="small-g", devices=12), (2, 12, 2, 128)),
        (Asked(partition="small-g", ntasks=16, tasks_per_node=8, devices_per_task=1), (2, 16, 16, 128)),
        (Asked(partition="small-g", nodes=1, exclusive=True), (1, 8, 56, 64)),
        (Asked(partition="small-g", nodes=1, devices_per_node=1, memory_gib=0.0), (1, 1, 1, 480)),
        (Asked(partition="small-g", nodes=1, devices_per_node=2, memory_gib_per_device=60.0), (1, 2, 1, 120)),
        (Asked(partition="small-g", nodes=1, devices_per_node=2, cpus_per_device=7, memory_gib=1.0), (1, 2, 14, 1)),
        (Asked(partition="small", cpus_per_task=4, memory_gib_per_cpu=2.0), (1, 0, 4, 8)),
    ],
)
def test_what_is_blocked(asked, expected):
    usage, _ = sbatch.usage(LUMI, asked)
    assert (usage.nodes, usage.devices, usage.cores, usage.memory_gib) == expected


@given(
    st.text()
    | st.lists(st.sampled_from([*SCRIPT.split(), "=", "'", "\n#SBATCH ", "--", "-", "--mem", "\x00"])).map(" ".join)
)
def test_any_text_is_read_or_refused(text):
    with suppress(RequestError):
        sbatch.usage(LUMI, sbatch.read(f"#SBATCH {text}"))


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 56), st.integers(1, 480), st.integers(1, 4320))
def test_a_script_costs_what_its_options_cost(nodes, devices, cores, gib, minutes):
    text = (
        f"#SBATCH --partition=small-g --nodes={nodes} --gpus-per-node={devices} --ntasks-per-node=1\n"
        f"#SBATCH --cpus-per-task={cores} --mem={format_gib(gib)} --time={format_minutes(minutes)}\n"
    )
    asked = Asked(
        partition="small-g", nodes=nodes, devices_per_node=devices, tasks_per_node=1, cpus_per_task=cores,
        memory_gib=float(gib), minutes=minutes,
    )  # fmt: skip
    bills = [billing.bill(LUMI, sbatch.usage(LUMI, each)[0]) for each in (sbatch.read(text), asked)]
    assert bills[0] == bills[1]


def test_a_script_from_the_command_line(work):
    (work / "job.sbatch").write_text(SCRIPT)
    values = price("job.sbatch")
    assert (values["billing_units"], values["cores"]) == (2.0, 28)
    moved = price("job.sbatch", "--partition", "standard-g", "--time", "2:00:00")
    assert (moved["billing_units"], moved["hours"]) == (16.0, 2.0)
    assert "stand in place of the script's" in moved["notes"][0]


TWO = """#SBATCH -A project_465000001 -t 2:00:00 -p standard-g -N 2 --gpus-per-node=8
#SBATCH hetjob
#SBATCH -p small-g --ntasks=1 --cpus-per-task=7 --gpus-per-node=1 --mem=60G
"""


def test_every_component_of_a_heterogeneous_job_costs(work):
    (work / "two.sh").write_text("#!/bin/bash\n" + TWO)
    found = price("two.sh")
    assert (found["billing_units"], found["billing_units_per_hour"], found["unit"]) == (17, 8.5, "GPU-hours")
    assert (found["nodes"], found["devices"], found["cheaper"]) == (3, 17, None)
    assert [(one["partition"], one["billing_units"]) for one in found["components"]] == [
        ("standard-g", 16), ("small-g", 1)]  # fmt: skip
    text = estimate("two.sh", "--site", "lumi").stdout
    assert "component 1: partition small-g, 1 node, 1 device" in text
    assert "17 GPU-hours" in text


def test_components_in_other_units_are_not_added_up(work):
    (work / "two.sh").write_text("#!/bin/bash\n" + TWO.replace("small-g", "small").replace("--gpus-per-node=1 ", ""))
    found = price("two.sh")
    assert (found["billing_units"], [one["unit"] for one in found["components"]]) == (16, ["GPU-hours", "core-hours"])
    assert "60 core-hours" in estimate("two.sh", "--site", "lumi").stdout


def test_an_array_costs_all_of_its_tasks(work):
    (work / "job.sbatch").write_text(SCRIPT.replace("-N 2", "-N 1 -a 0-9"))
    values = price("job.sbatch")
    assert (values["billing_units"], values["tasks"], values["hours"]) == (10.0, 10, 1.0)


def test_scripts_that_say_nothing(work):
    (work / "binary").write_bytes(bytes(range(256)))
    (work / "no-partition").write_text("#SBATCH -N 1\n")
    assert "no #SBATCH line" in refused("binary")
    assert "no partition is named" in refused("no-partition")


# ---- jobs that ran, and what is left ---------------------------------------------------------------------------


def test_a_local_run_shows_what_it_took(work):
    folder = rundir.make(work / "run")
    entry = Entry(job_id="local-1", name="x", folder=str(folder.path), site="local", scheduler="local",
                  submitted=time.time(), units_per_hour=4.0, unit="device-hours")  # fmt: skip
    rundir.write_json(
        folder.job_file,
        {"job": {"partition": "local"}, "launch": {"world_size": 4}, "estimate": {"cores": 4, "memory_gib": 256}},
    )
    rundir.write_json(folder.accounting, {"state": "COMPLETED", "exit_codes": [0], "elapsed_seconds": 1800})
    rundir.note_submission(folder, entry, {})
    values = price("local-1")
    assert (values["billing_units"], values["actual"], values["site"], values["hours"]) == (2.0, True, "local", 0.5)
    assert "the options out" in refused("local-1", "-N", 2)


def test_a_slurm_job_and_an_array_show_what_they_took(work, monkeypatch):
    rows = "JobID|State|Partition|Account|ElapsedRaw|AllocTRES\n" + "\n".join(
        f"9_{task}|COMPLETED|small-g|p|3600|cpu=14,gres/gpu=1,mem=60G,node=1" for task in range(4)
    )
    monkeypatch.setattr("lumi_moai.slurm.sacct", lambda ids: rows)
    values = price("9")
    assert (values["billing_units"], values["hours"], values["decided_by"], values["actual"]) == (
        2.0,
        4.0,
        "devices",
        True,
    )
    assert "4 runs of the array" in values["notes"][0]


@pytest.fixture
def allocated(work, monkeypatch):
    """A site whose balances lie in this test's folder."""
    text = (catalog.sites.root("configs") / "sites" / "lumi.yaml").read_text()
    sites = work / "sites"
    sites.mkdir()
    (sites / "lumi.yaml").write_text(text.replace("/var/lib/project_info/users", str(work)))
    monkeypatch.setenv("LUMI_MOAI_PATH", str(work))
    folder = work / "project_465000001"
    folder.mkdir()
    return folder / "project_465000001.json"


def test_what_is_left_of_the_allocation(allocated):
    balance = {"gpu_hours": {"alloc": 1000, "used": 232.0}, "cpu_hours": {"alloc": 10, "used": 20}}
    allocated.write_text(json.dumps({"billing": balance}))
    words = ["-f", "8xLarge", "--time", "12:00:00", "--account", "project_465000001"]
    assert price(*words)["allocation"] == {
        "account": "project_465000001", "unit": "GPU-hours", "alloc": 1000.0, "used": 232.0, "left": 768.0,
        "share_of_left": 0.5,
    }  # fmt: skip
    done = estimate("-p", "small", "-c", 4, "--mem", "4G", "-A", "project_465000001", "--site", "lumi")
    assert "project_465000001 has used 20 of 10 core-hours: none are left" in done.stdout


@pytest.mark.parametrize("text", ['{"billing": {', '{"billing": {}}', '{"billing": []}', "[]"])
def test_a_torn_allocation_is_one_warning(allocated, text):
    allocated.write_text(text)
    done = estimate("-f", "Small", "--time", "60", "-A", "project_465000001", "--site", "lumi", "--json")
    assert done.exit_code == 0
    assert done.stderr.count("Warning: what is left of the allocation is not known") == 1
    assert json.loads(done.stdout)["allocation"] is None


def test_no_allocation_file_is_no_matter(allocated):
    done = estimate("-f", "Small", "--time", "60", "-A", "project_465000002", "--site", "lumi")
    assert (done.exit_code, done.stderr) == (0, "")
    assert gather.balance(LUMI, "../../etc/passwd", "gpu", "GPU-hours") == (None, None)
