"""`smi` looks and speaks like moreh-smi 24.5, and its values come from the nodes of the job.

`srun` and `squeue` are stand-ins here: `srun` runs the very sampler that a node would run, once for each node, labels
its lines as Slurm does, and hands them on in mixed order. The sampler starts the stand-in for the vendor's program.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lumi_moai import __version__, catalog, rundir, state
from lumi_moai.cli import main
from lumi_moai.flavor import find, place
from lumi_moai.monitor import Look, Process, Reading, Run, Sample, job, processes, table
from lumi_moai.monitor.accelerators import accelerators

RECORDED = Path(__file__).parent / "recorded" / "monitor"
MENU = catalog.flavors()

SRUN = """#!/bin/sh
# A stand-in for Slurm's srun in tests: one task a node, all on this machine, output labelled as --label does.
echo "$@" >>"$CALLS_OF_SRUN"
nodes=1
while [ "$1" != sh ]; do
    case "$1" in --nodes=*) nodes=${1#*=} ;; esac
    shift
done
for node in $(seq 0 $((nodes - 1))); do
    export SLURMD_NODENAME=nid00512$node SLURM_JOB_ID=0 SLURM_STEP_GPUS=$STEP_DEVICES
    "$@" | sed "s/^/$node: /" >"$CALLS_OF_SRUN.$node"
done
paste -d '\\n' "$CALLS_OF_SRUN".*  # lines of several nodes arrive mixed, those of one node in order
"""


def run(*words, site="lumi"):
    return CliRunner().invoke(main, ["smi", "--site", site, *words])


def entry(folder, **more):
    plain = {"job_id": "976356", "name": "train", "site": "lumi", "scheduler": "slurm"}
    return rundir.Entry(
        folder=str(folder.path), submitted=time.time(), units_per_hour=4.0, unit="GPU-hours", **{**plain, **more}
    )


def submitted(path, flavor, *, facts=None, **more):
    """A run folder and its ledger entry as `submit` leaves them, with the placement that the site gives the flavor."""
    folder = rundir.make(path)
    site = catalog.site(more.get("site", "lumi"))
    placement = place(site, find(flavor, MENU), minutes=60)
    rundir.write_json(
        folder.job_file,
        {
            "job": {
                "flavor": placement.flavor.name,
                "partition": placement.partition.name,
                "nodes": placement.nodes,
                "devices_per_node": placement.devices_per_node,
                "account": "project_465000001",
                "command": [str(folder.code / "tutorial/train_gpt.py"), "--batch-size", "32"],
                "python": sys.executable,
            }
        },
    )
    rundir.note_submission(folder, entry(folder, **more), facts or {})
    return folder


@pytest.fixture
def site_tools(tmp_path, monkeypatch):
    """`srun` and `squeue` first on PATH; `queue(...)` says which jobs Slurm knows."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "squeue").write_text('#!/bin/sh\necho asked >>"$CALLS_OF_SQUEUE"\ncat "$TEXT_OF_SQUEUE"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{RECORDED}", prepend=":")
    for name in ("CALLS_OF_SRUN", "CALLS_OF_SQUEUE", "TEXT_OF_SQUEUE"):
        (tmp_path / name).write_text("")
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("STEP_DEVICES", "")
    monkeypatch.setenv("RECORDED", str(RECORDED / "rocm-smi-5.6-mi250x.json"))

    def queue(*jobs):
        lines = [f"{job_id}|{state}|None|1:00|10:00|1|standard-g|train|x\n" for job_id, state in jobs]
        (tmp_path / "TEXT_OF_SQUEUE").write_text("".join(lines))

    return queue


# ---- the table, to the letter ------------------------------------------------------------------------------------

MOAI = """\
+-----------------------------------------------------------------------------------------------------+
|                                                    Current Version: 24.5.0  Latest Version: 24.5.0  |
+-----------------------------------------------------------------------------------------------------+
|  Device  |        Name         |       Model      |  Memory Usage  |  Total Memory  |  Utilization  |
+=====================================================================================================+
|  * 0     |  MoAI Accelerator   |  xLarge.512GB    |    397 MiB     |  524160 MiB    |      0 %      |
+-----------------------------------------------------------------------------------------------------+

Processes:
+-----------------------------------------------------------------------------------+
|  Device  |  Job ID  |    PID    |             Process            |  Memory Usage  |
+===================================================================================+
|       0  |  976356  |  1548305  |  python tutorial/train_gpt.py  |    397 MiB     |
+-----------------------------------------------------------------------------------+"""

IDLE = """\
|  * 0     |  MoAI Accelerator   |  4xLarge.2048GB  |  -             |  -             |  -            |"""

BUSY = """\
|  * 0     |  MoAI Accelerator   |  8xLarge.4096GB  |  3516969 MiB   |  4193280 MiB   |     100 %     |"""


def a_run(flavor, **more):
    placement = place(catalog.site("lumi"), find(flavor, MENU), minutes=60)
    plain = {
        "job_id": "976356", "name": "train", "folder": rundir.RunFolder(Path("/run")), "local": False,
        "flavor": placement.flavor.name, "partition": placement.partition.name, "nodes": placement.nodes,
        "devices_per_node": placement.devices_per_node, "account": None, "command": "python tutorial/train_gpt.py",
        "python": "python",
    }  # fmt: skip
    return Run(**{**plain, **more})


def a_look(memories, used=None, **more):
    samples = [
        Sample(node="a", device=at, memory_used_mib=mib, utilisation_percent=used) for at, mib in enumerate(memories)
    ]
    return Reading(
        look=Look(samples=tuple(samples), processes=(Process(node="a", pid=1548305, name="python"),)), **more
    )


def rows(default, *runs_and_readings):
    bare = accelerators(catalog.site("lumi"), MENU, default, [run for run, _ in runs_and_readings])
    readings = {run.job_id: reading for run, reading in runs_and_readings}
    return [replace(row, reading=readings.get(row.run.job_id)) if row.run else row for row in bare]


def test_the_tables_are_moais_to_the_letter():
    found = rows("xLarge", (a_run("xLarge"), a_look([390, 1, 1, 1, 1, 1, 1, 1], used=0.0)))
    assert table.devices(found, "24.5.0") + "\n" + table.processes(found) == MOAI


def test_an_idle_device_shows_dashes():
    found = rows("4xLarge")
    assert IDLE in table.devices(found, "24.5.0")
    assert table.processes(found) == ""


def test_a_large_busy_device():
    found = rows("8xLarge", (a_run("8xLarge"), a_look([3516969 - 63, *[1] * 63], used=100.0)))
    assert BUSY in table.devices(found, "24.5.0")


def test_the_reader_of_morehs_own_harness_still_works():
    """It splits at `|`: field 3 is the flavor in the device table; 4 and 5 the command and its memory below."""
    found = rows("xLarge", (a_run("xLarge"), a_look([390, 1, 1, 1, 1, 1, 1, 1], used=50.0)))
    device = table.devices(found, "1").splitlines()[5].split("|")
    process = table.processes(found).splitlines()[5].split("|")
    assert device[3].strip() == "xLarge.512GB"
    assert (process[4].strip(), process[5].strip()) == ("python tutorial/train_gpt.py", "397 MiB")


@pytest.mark.parametrize(
    ("flavor", "mib"), [("Small", 65520), ("Medium", 131040), ("xLarge", 524160), ("8xLarge", 4193280)]
)
def test_total_memory_is_65520_mib_a_device(flavor, mib):
    (row,) = rows(flavor, (a_run(flavor), Reading()))
    assert row.memory_total_mib == mib


def test_every_line_of_a_box_is_as_long_as_its_frame():
    found = rows("48xLarge", (a_run("Small", job_id="1234567_1234", command="x" * 70), a_look([5], used=3.0)))
    account = "project_465000001_with_a_long_name"
    for text in (
        table.devices(found, "0"),
        table.processes(found),
        table.chips(found[1]),
        table.tokens(found, account),
    ):
        lines = [line for line in text.splitlines() if line[:1] in "+|" and line]
        assert len({len(line) for line in lines}) == 1


# ---- which rows there are ----------------------------------------------------------------------------------------


def test_the_newest_run_with_the_chosen_flavor_is_on_the_default_device():
    runs = [(a_run("xLarge", job_id=str(number)), Reading()) for number in (1, 2)]
    found = rows("xLarge", *runs, (a_run("Small", job_id="3"), Reading()))
    assert [(row.number, row.default, row.run.job_id) for row in found] == [
        (0, True, "2"),
        (1, False, "1"),
        (2, False, "3"),
    ]


def test_a_running_job_keeps_its_flavor_when_another_is_chosen():
    found = rows("8xLarge", (a_run("xLarge"), Reading()))
    assert [(row.model, row.run is not None) for row in found] == [("8xLarge.4096GB", False), ("xLarge.512GB", True)]


def test_sums_and_means():
    (row,) = rows("Medium", (a_run("Medium"), a_look([100, 200])))
    assert (row.memory_used_mib, row.utilisation_percent, row.power_watts) == (300, None, None)
    samples = (
        Sample(node="a", device=0, memory_used_mib=1, utilisation_percent=100, power_watts=300.0),
        Sample(node="a", device=1, memory_used_mib=2, utilisation_percent=50),
    )
    (row,) = rows("Medium", (a_run("Medium"), Reading(look=Look(samples=samples))))
    assert (row.memory_used_mib, row.utilisation_percent, row.power_watts) == (3, 75, 300)


def test_a_part_is_not_the_whole():
    """A node that does not answer, or a device that does not tell: no sum is better than a wrong one."""
    (row,) = rows("Large", (a_run("Large"), a_look([100, 200], used=1.0)))
    assert (row.memory_used_mib, row.utilisation_percent) == (None, None)
    (row,) = rows("Medium", (a_run("Medium"), a_look([100, None])))
    assert row.memory_used_mib is None


# ---- the way there -----------------------------------------------------------------------------------------------


def test_nothing_runs():
    state.choose("lumi", "8xLarge")
    answer = run()
    assert answer.exit_code == 0
    assert answer.stderr == ""
    assert f"Current Version: {__version__}  Latest Version: {__version__}  |" in answer.stdout
    assert "|  * 0     |  MoAI Accelerator   |  8xLarge.4096GB  |  -  " in answer.stdout
    assert "Processes" not in answer.stdout


def test_nothing_chosen_yet():
    assert "|  * 0     |  MoAI Accelerator   |  -               |  -  " in run().stdout


def test_a_setting_is_stronger_than_the_choice(monkeypatch):
    state.choose("lumi", "8xLarge")
    monkeypatch.setenv("LUMI_MOAI_FLAVOR", "4")
    assert "xLarge.512GB" in run().stdout


def test_two_nodes_of_a_running_job(tmp_path, site_tools):
    state.choose("lumi", "2xLarge")
    submitted(tmp_path / "run", "2xLarge")
    site_tools(("976356", "RUNNING"))
    answer = run()
    assert answer.stderr == ""
    used = 2 * sum(58012 + device for device in range(8))
    assert (
        f"|  * 0     |  MoAI Accelerator   |  2xLarge.1024GB  |   {used} MiB   |  1048320 MiB   |     100 %     |"
        in (answer.stdout)
    )
    assert f"|       0  |  976356  |  84321    |  python tutorial/train_gpt.py --batch-size 32  |   {used} MiB   |" in (
        answer.stdout
    )
    call = (tmp_path / "CALLS_OF_SRUN").read_text()
    for word in ("--overlap", "--jobid=976356", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=8"):
        assert word in call


def test_physical_devices_of_two_nodes(tmp_path, site_tools):
    submitted(tmp_path / "run", "2xLarge")
    site_tools(("976356", "RUNNING"))
    text = run("-p").stdout
    assert "Device 1  2xLarge.1024GB  Job 976356  |" in text
    chips = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "nid00512" in line]
    assert len(chips) == 16
    assert chips[0] == ["0", "nid005120:0", "59 C", "63 C", "100 %", "34 %", "89 %", "470 W"]
    assert chips[1] == [
        "1",
        "nid005120:1",
        "60 C",
        "64 C",
        "100 %",
        "35 %",
        "89 %",
        "",
    ]  # its power is in the line above
    assert chips[8][:2] == ["8", "nid005121:0"]


def test_part_of_a_node_whose_source_shows_all_of_it(tmp_path, site_tools, monkeypatch):
    """Slurm gave devices 2 and 3; a source that is not held back shows eight."""
    monkeypatch.setenv("STEP_DEVICES", "2,3")
    submitted(tmp_path / "run", "Medium")
    site_tools(("976356", "RUNNING"))
    device = json.loads(run("--json").stdout)["devices"][1]
    assert device["memory_used_mib"] == 58014 + 58015
    assert device["power_watts"] == 472


def test_part_of_a_node_with_the_second_die_only(tmp_path, site_tools, monkeypatch):
    monkeypatch.setenv("RECORDED", str(RECORDED / "rocm-smi-6.3-part-of-a-node.json"))
    submitted(tmp_path / "run", "Medium")
    site_tools(("976356", "RUNNING"))
    chips = [line.split("|")[8].strip() for line in run("-p").stdout.splitlines() if "nid005120:" in line]
    assert chips == ["-", "288 W"]


def test_a_missing_source_is_one_sentence_and_dashes(tmp_path, site_tools, monkeypatch):
    monkeypatch.setenv("RECORDED", "/nowhere")
    submitted(tmp_path / "run", "xLarge")
    site_tools(("976356", "RUNNING"))
    answer = run()
    assert answer.exit_code == 0
    assert answer.stderr.startswith("Warning: no live values of job 976356: rocm-smi: ")
    assert "amdsmi: its Python library is not installed" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert (
        "|    1     |  MoAI Accelerator   |  xLarge.512GB    |  -             |  524160 MiB    |  -            |"
        in (answer.stdout)
    )
    assert "|       1  |  976356  |  -        |  python tutorial/train_gpt.py" in answer.stdout


def test_srun_that_refuses_is_one_sentence(tmp_path, site_tools):
    (tmp_path / "tools" / "srun").write_text("#!/bin/sh\necho 'srun: error: Unable to create step' >&2\nexit 1\n")
    submitted(tmp_path / "run", "Small")
    site_tools(("976356", "RUNNING"))
    answer = run()
    assert answer.exit_code == 0
    assert "Unable to create step" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_values_of_some_devices_only(tmp_path, site_tools, monkeypatch):
    monkeypatch.setenv("RECORDED", str(RECORDED / "rocm-smi-6.3-part-of-a-node.json"))
    submitted(tmp_path / "run", "xLarge")
    site_tools(("976356", "RUNNING"))
    answer = run()
    assert answer.stderr == "Warning: rocm-smi shows 2 of the 8 devices of job 976356\n"
    assert "|  -             |  524160 MiB    |  -            |" in answer.stdout


def test_one_squeue_call_for_all_jobs(tmp_path, site_tools):
    for number in range(3):
        submitted(tmp_path / f"run{number}", "Small", job_id=str(number))
    site_tools(("0", "RUNNING"), ("1", "PENDING"))
    assert len(json.loads(run("--json").stdout)["devices"]) == 2  # the default one and job 0; 1 waits, 2 has ended
    assert (tmp_path / "CALLS_OF_SQUEUE").read_text() == "asked\n"


def test_tasks_of_an_array_are_devices_of_their_own(tmp_path, site_tools):
    submitted(tmp_path / "run", "Small", job_id="50")
    site_tools(("50_0", "RUNNING"), ("50_1", "RUNNING"), ("50_2", "PENDING"))
    found = json.loads(run("--json").stdout)["devices"]
    assert [device["job_id"] for device in found] == [None, "50_0", "50_1"]


def test_runs_of_other_sites_are_not_shown(tmp_path, site_tools):
    submitted(tmp_path / "run", "Small", site="delta")
    site_tools(("976356", "RUNNING"))
    assert len(json.loads(run("--json").stdout)["devices"]) == 1


def test_slurm_that_does_not_answer_is_a_warning(tmp_path, site_tools):
    (tmp_path / "tools" / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Connection refused' >&2\nexit 1\n"
    )
    submitted(tmp_path / "run", "Small")
    answer = run()
    assert answer.exit_code == 0
    assert "nothing is known of the running jobs" in answer.stderr
    assert "* 0" in answer.stdout


@pytest.mark.parametrize("text", ["{", "{}", '{"job": {}}', '{"job": {"flavor": "Small"}}'])
def test_a_run_folder_that_is_torn_is_passed_over(tmp_path, site_tools, text):
    folder = submitted(tmp_path / "run", "Small")
    folder.job_file.write_text(text)
    site_tools(("976356", "RUNNING"))
    answer = run()
    assert answer.exit_code == 0
    assert "run 976356 is passed over" in answer.stderr


def test_only_one_device_and_only_its_nodes_are_asked(tmp_path, site_tools):
    submitted(tmp_path / "a", "Small", job_id="1")
    submitted(tmp_path / "b", "Medium", job_id="2")
    site_tools(("1", "RUNNING"), ("2", "RUNNING"))
    text = run("-i", "2").stdout
    assert "Medium.128GB" in text
    assert "Small.64GB" not in text
    assert (tmp_path / "CALLS_OF_SRUN").read_text().count("--jobid") == 1


@pytest.mark.parametrize("number", ["1", "-1"])
def test_a_device_that_is_not_there(number):
    answer = run("-i", number)
    assert answer.exit_code == 1
    assert answer.stderr == f"Error: there is no device {number}; `lumi-moai smi` shows only device 0\n"


def test_tokens_are_projects(tmp_path, site_tools, monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "project_465000999")
    submitted(tmp_path / "run", "Small")
    site_tools(("976356", "RUNNING"))
    text = run("-t").stdout
    assert "|  * 0     |  MoAI Accelerator   |  project_465000999  |  -               |" in text
    assert "|    1     |  MoAI Accelerator   |  project_465000001  |  Small.64GB      |" in text
    assert (tmp_path / "CALLS_OF_SRUN").read_text() == ""  # no node was bothered


def test_version():
    assert run("-v").stdout == f"lumi-moai {__version__}\n"


def test_physical_devices_of_nothing():
    answer = run("-p")
    assert answer.exit_code == 0
    assert "an idle accelerator holds no devices" in answer.stderr


def test_json_keys(tmp_path, site_tools):
    submitted(tmp_path / "run", "Small")
    site_tools(("976356", "RUNNING"))
    found = json.loads(run("--json").stdout)
    assert set(found) == {"version", "site", "devices", "processes"}
    assert set(found["devices"][1]) == {
        "device", "default", "name", "flavor", "model", "job_id", "account", "memory_used_mib", "memory_total_mib",
        "utilisation_percent", "power_watts", "source", "why_no_values", "samples",
    }  # fmt: skip
    assert found["devices"][1]["why_no_values"] is None
    assert found["processes"][0]["process"] == "python tutorial/train_gpt.py --batch-size 32"


# ---- the sampler's words -----------------------------------------------------------------------------------------


def test_a_record_in_pieces():
    """srun mixes the pieces of several nodes; a greeting of the prolog and an empty line are no records."""
    first, second = (
        '1: nid2\t\t\t{"card0"\n0: nid1\t\t\t{"card0": {"GPU use\n',
        '1: : {"GPU use (%)": "7"}}\n0:  (%)": "9"}}\n',
    )
    text = f"{first}\nwelcome\n{second}"
    look = job.parse("rocm-smi", text, a_run("Medium", nodes=2, devices_per_node=1))
    assert [(sample.node, sample.utilisation_percent) for sample in look.samples] == [("nid1", 9), ("nid2", 7)]


def test_the_processes_of_others_are_left_out():
    cards = '{"card0": {}, "system": {"PID5": "python, 1, 1, 0, 0", "PID6": "python, 1, 1, 0, 0"}}'
    look = job.parse("rocm-smi", f"0: nid1\t0\t4 5 \t{cards}\n", a_run("Small"))
    assert [process.pid for process in look.processes] == [5]


def test_the_sampler_for_python_sources_runs_anywhere(tmp_path):
    """The module starts with nothing but Python, as on a node: no site-packages."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "lumi_moai.monitor", "nvml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("its Python library is not installed")
    assert done.stderr.count("\n") == 1


def test_the_sampler_knows_its_sources(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lumi_moai.monitor", "tealeaves"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "rocm-smi|amdsmi|nvml" in done.stderr


# ---- local runs: real processes ----------------------------------------------------------------------------------

# A controller with two ranks behind a shell each; every rank holds 64 MiB and has a worker, and is busy or not.
RANK = "import os, sys, time; held = bytearray(64 << 20); sys.stdout.write('ready\\n'); sys.stdout.flush(); exec(sys.argv[1])"
BUSY_LOOP = "while True: pass"
CONTROLLER = f"""
import os, subprocess, sys, time
for rank, work in enumerate([{BUSY_LOOP!r}, "time.sleep(60)"]):
    words = ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", {RANK!r}, work]
    subprocess.Popen(words, env={{**os.environ, "SUBMITIT_LOCAL_LOCALID": str(rank)}}, start_new_session=True)
time.sleep(60)
"""


@pytest.fixture
def controller():
    """A running local job of two ranks; ended whatever the test does."""
    job = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for _ in range(2):
        assert job.stdout.readline() == "ready\n"
    yield job
    stats = processes._stats()
    for stat in processes._family(stats, job.pid):
        os.kill(stat.pid, 9)
    job.wait()
    job.stdout.close()


def test_ranks_of_a_local_run_are_its_devices(controller):
    look = processes.read(controller.pid, node="here", memory_total_mib=65520.0)
    assert [sample.device for sample in look.samples] == [0, 1]
    for sample, process in zip(look.samples, look.processes, strict=True):
        assert 64 < sample.memory_used_mib < 400
        assert "held = bytearray" in process.name  # the rank, not the shell that started it
    assert look.samples[0].utilisation_percent > look.samples[1].utilisation_percent
    assert look.samples[1].utilisation_percent < 20


def test_smi_of_a_local_run(tmp_path, controller):
    state.choose("local", "Medium")
    started = str(processes._stat(controller.pid).started_ticks)
    submitted(
        tmp_path / "run", "Medium", site="local", scheduler="local", job_id="local-1",
        facts={"pid": controller.pid, "pid_start": started},
    )  # fmt: skip
    answer = run(site="local")
    assert answer.stderr == ""
    assert "|  * 0     |  MoAI Accelerator   |  Medium.128GB    |" in answer.stdout
    assert "|  131040 MiB    |" in answer.stdout
    assert "python tutorial/train_gpt.py --batch-size 32" in answer.stdout


def test_a_stranger_with_the_same_number_is_no_run(tmp_path, controller):
    submitted(
        tmp_path / "run", "Medium", site="local", scheduler="local", facts={"pid": controller.pid, "pid_start": "1"}
    )
    assert len(json.loads(run("--json", site="local").stdout)["devices"]) == 1


def test_a_local_run_that_has_ended(tmp_path):
    submitted(tmp_path / "run", "Medium", site="local", scheduler="local", facts={"pid": 2**22 + 1})
    answer = run("--json", site="local")
    assert answer.stderr == ""
    assert len(json.loads(answer.stdout)["devices"]) == 1


def test_a_run_that_ends_while_we_look(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "process_start", lambda _: "1")
    facts = {"pid": 2**22 + 1, "pid_start": "1"}
    submitted(tmp_path / "run", "Medium", site="local", scheduler="local", job_id="local-2", facts=facts)
    answer = run(site="local")
    assert answer.exit_code == 0
    assert "no live values of job local-2" in answer.stderr
