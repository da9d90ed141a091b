"""`explain` and `import`: a script in words, and as a job that `render` takes."""

import json
import shlex

import pytest
from click.testing import CliRunner

from lumi_moai.cli import main

SCRIPT = """#!/bin/bash
#SBATCH --job-name=llama
#SBATCH --account=project_465000001
#SBATCH --partition=standard-g
#SBATCH --nodes=2 --ntasks-per-node=8 --cpus-per-task=7
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --qos=special
module load LUMI
export MASTER_ADDR=$(scontrol show hostnames | head -n1)
export MASTER_PORT=29500
export NCCL_SOCKET_IFNAME=hsn
export HF_HOME=/scratch/project_465000001/hf WANDB_API_KEY=$KEY MIOPEN_USER_DB=/tmp/x
srun --cpus-per-task=7 singularity exec old.sif python -u train.py --lr 1e-4 --name "a b"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    (tmp_path / "job.sh").write_text(SCRIPT)
    return tmp_path


def run(*words):
    return CliRunner().invoke(main, list(words))


def test_explain_says_what_each_line_asks_for_and_the_price_of_an_hour(here):
    done = run("explain", "job.sh")
    lines = done.stdout.splitlines()
    told = {line: lines[at + 1].strip() for at, line in enumerate(lines[:-1]) if lines[at + 1].startswith("      ^")}
    assert told["   7  #SBATCH --mem=0"] == "^ all memory of each node"
    assert (
        told["   5  " + SCRIPT.split("\n")[4]] == "^ 2 nodes; 8 tasks on each node; 7 cores for each task, 56 on a node"
    )
    (step,) = [meaning for line, meaning in told.items() if "srun" in line]
    assert step == "^ starts 16 tasks on 2 nodes, 7 cores each; in the image old.sif; runs train.py"
    assert lines[-1] == "An hour costs 8 GPU-hours on lumi: 2 nodes, 16 devices, 112 cores, 960G; decided by nodes"


def test_explain_keeps_what_moves_the_cursor_off_the_terminal(here):
    (here / "moving.sh").write_text("#!/bin/bash\n#SBATCH -p dev-g\n#SBATCH --time=9:\x1b]0;me\x07\nsrun x\x1b[2J\n")
    assert "\x1b" not in run("explain", "moving.sh").output


def test_explain_has_json(here):
    values = json.loads(run("explain", "job.sh", "--json").stdout)
    assert (values["billing_units_per_hour"], values["unit"]) == (8, "GPU-hours")
    assert values["lines"][0] == {"line": 2, "text": "#SBATCH --job-name=llama", "meaning": "is called llama"}


TWO = """#!/bin/bash
#SBATCH -A project_465000001 -t 1:00:00 -p standard-g -N 2 --gpus-per-node=8 --ntasks-per-node=8 -c 7
#SBATCH hetjob
#SBATCH -p {} -n 1 -c 7 --mem=60G{}
srun python train.py : -n 1 python serve.py
"""


def test_explain_tells_and_adds_up_every_component_of_the_job(here):
    (here / "two.sh").write_text(TWO.format("small", ""))
    text = run("explain", "two.sh").stdout
    assert "component 1 of the job; in partition small: parts of nodes" in text
    assert "starts 16 tasks on 2 nodes, 7 cores each; runs train.py; in component 1: starts 1 task on 1 node" in text
    assert "An hour costs 8 GPU-hours and 30 core-hours on lumi: component 0: 2 nodes" in text
    (here / "two.sh").write_text(TWO.format("small-g", " --gpus-per-node=1"))
    values = json.loads(run("explain", "two.sh", "--json").stdout)
    assert (values["billing_units_per_hour"], values["unit"]) == (8.5, "GPU-hours")
    assert [price["per_hour"] for price in values["prices"]] == [8, 0.5]


def test_import_takes_the_first_component_and_names_the_rest(here):
    (here / "two.sh").write_text(TWO.format("small", "") + "srun python other.py\nsrun python train.py\n")
    values = json.loads(run("import", "two.sh", "--json").stdout)
    assert values["submit"][-1] == "train.py"
    assert "the second component of the job is not taken over" in values["differences"]
    assert "other programs that srun starts are not taken over: other.py" in values["differences"]


def test_explain_names_the_program_behind_pythons_options(here):
    (here / "job.sh").write_text(SCRIPT + "python -W ignore -u last.py\npython -c 'import a\nprint(a)'\n")
    text = run("explain", "job.sh").stdout
    assert "^ runs last.py" in text
    assert "^ runs lines of Python\n" in text


def test_explain_tells_what_does_not_count(here):
    (here / "job.sh").write_text(
        SCRIPT.replace("#SBATCH --mem=0", "#SBATCH --mem=1G\n#SBATCH --mem=2G") + "#SBATCH -N 9\n"
    )
    text = run("explain", "job.sh").stdout
    assert "1G of memory on each node (a later line stands in its place)" in text
    assert "a comment: Slurm stops reading at the first command" in text


def test_import_gives_a_flavor_a_project_file_and_a_submit_line(here):
    values = json.loads(run("import", "job.sh", "--json").stdout)
    assert (values["flavor"], values["nodes"], values["devices"]) == ("2xLarge", 2, 16)
    assert values["submit"] == ["lumi-moai", "submit", "--flavor", "2xLarge", "--job-name", "llama", "train.py", "--lr", "1e-4",
                                "--name", "a b"]  # fmt: skip
    settings = values["settings"]
    assert settings["env"] == {"HF_HOME": "/scratch/project_465000001/hf"}
    assert settings["sbatch"] == {"qos": "special"}
    assert (settings["account"], settings["time"]) == ("project_465000001", "12:00:00")
    told = "\n".join(values["differences"])
    for words in ("480G of memory on a node in place of all of it", "bound to the cores beside its device", "MIOPEN_USER_DB",
                  "the port is made of the job id", "WANDB_API_KEY is left out: secrets", "NCCL_SOCKET_IFNAME is the site's own",
                  "not old.sif"):  # fmt: skip
        assert words in told


def test_what_import_says_can_be_rendered_as_it_stands(here):
    done = run("import", "job.sh", "--write")
    line = next(line for line in done.stdout.splitlines() if line.startswith("Submit"))
    (here / "train.py").write_text("print(1)\n")
    words = shlex.split(line.removeprefix("Submit"))[2:]
    text = run("render", *words).stdout
    for expected in ("--partition=standard-g", "--nodes=2", "--time=12:00:00", "--qos=special", "--job-name=llama",
                     "export HF_HOME=/scratch/project_465000001/hf", "train.py --lr 1e-4 --name 'a b'"):  # fmt: skip
        assert expected in text
    again = run("import", "job.sh", "--write")
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_a_hostile_script_stays_text_in_the_project_file(here):
    (here / "job.sh").write_text(
        SCRIPT.replace("HF_HOME=/scratch/project_465000001/hf", "X='a: [\"b\"]\n- $(touch pwned)'")
    )
    run("import", "job.sh", "--write")
    assert "pwned" not in json.dumps(json.loads(run("config", "--beside", "job.sh", "--json").stdout)).replace(
        "touch pwned", ""
    )
    assert not (here / "pwned").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("python -u train.py", "./prog", "starts ./prog, and no Python program that can be seen"),
        ("#SBATCH --gpus-per-node=8\n", "", "asks for no devices"),
        ("standard-g", "gpu_p5", "say with --site which cluster"),
        ("--nodes=2", "--nodes=900", "no flavor has the 7200 devices"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(here, old, new, sentence):
    (here / "job.sh").write_text(SCRIPT.replace(old, new))
    done = run("import", "job.sh")
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("launch", "command"),
    [
        ("torchrun --nnodes=2 --nproc-per-node 8 --rdzv-backend=c10d train.py --x", ["train.py", "--x"]),
        ("python -m torch.distributed.run --standalone --nproc_per_node=8 train.py", ["train.py"]),
    ],
)
def test_torchrun_is_kept_as_the_launcher(here, launch, command):
    (here / "job.sh").write_text(
        SCRIPT.split("srun", 1)[0].replace("node=8 --cpus-per-task=7", "node=1 --cpus-per-task=56") + f"srun {launch}\n"
    )
    values = json.loads(run("import", "job.sh", "--json").stdout)
    assert values["settings"]["launcher"] == "torchrun"
    assert values["settings"]["container"] == "none"
    assert values["submit"][-len(command) :] == command


def test_import_takes_the_most_of_a_range_of_nodes(here):
    (here / "two.sh").write_text(TWO.format("small", "").replace("-N 2", "-N 1-2"))
    assert json.loads(run("import", "two.sh", "--json").stdout)["nodes"] == 2


def test_explain_tells_one_from_eleven(here):
    (here / "one.sh").write_text(
        "#!/bin/bash\n#SBATCH -p standard-g -N 11 --ntasks-per-node=1 --gpus-per-task=1\nsrun -N1 -n1 x\n"
    )
    said = run("explain", "one.sh").stdout
    assert "^ in partition standard-g" in said
    assert "11 nodes; 1 task on each node; 1 device for each task, shut in with it" in said
    assert "starts 1 task on 1 node" in said
