"""`import` of the many ways in which a batch script starts Python."""

import json

import pytest
from test_check_explain import SCRIPT, here, run  # noqa: F401

STARTS = {
    "srun python3.11 -u -W ignore train.py --lr 1": ("python", ["train.py", "--lr", "1"], {}, ""),
    'CMD=(python train.py --lr 1)\nsrun "${CMD[@]}"': ("python", ["train.py", "--lr", "1"], {}, ""),
    'srun singularity exec i.sif bash -c "source /v/bin/activate; export HF_HOME=/x; python train.py"': (
        "python", ["train.py"], {"HF_HOME": "/x"}, "not taken over from around the program: source /v/bin/activate"),
    "srun conda run -n env python train.py": (
        "python", ["train.py"], {}, "not taken over from around the program: conda run -n env"),
    "srun python3 -m pkg.train --x 1": (
        "python", ["run_pkg_train.py", "--x", "1"], {}, "runpy.run_module('pkg.train', run_name='__main__'"),
    "srun python -m pkg.here --x 1": ("python", ["pkg/here.py", "--x", "1"], {}, "runs as the file pkg/here.py"),
    "srun python -m torch.distributed.run --nproc_per_node 8 -m pkg.here": ("torchrun", ["pkg/here.py"], {}, ""),
    "srun accelerate launch --config_file c.yaml --num_processes 16 --machine_rank $SLURM_NODEID --mixed_precision bf16"
    " --use_deepspeed train.py --lr 1": (
        "script", ["train.py", "--lr", "1"], {"ACCELERATE_MIXED_PRECISION": "bf16"},
        "not taken over from accelerate: --config_file c.yaml, --use_deepspeed;"),
    'LAUNCHER="accelerate launch --multi_gpu --main_process_port 6000"\nsrun bash -c "$LAUNCHER train.py --epochs 3"': (
        "script", ["train.py", "--epochs", "3"], {}, "accelerate starts no ranks: lumi-moai starts one for each device"),
    "srun python -m accelerate.commands.launch --cpu train.py": ("script", ["train.py"], {}, "--cpu"),
    "srun accelerate launch -m axolotl.cli.train c.yml": ("script", ["run_axolotl_cli_train.py", "c.yml"], {}, "axolotl.cli.train"),
    "deepspeed --hostfile hosts --num_gpus=8 train.py --deepspeed ds.json": (
        "script", ["train.py", "--deepspeed", "ds.json"], {}, "deepspeed starts no ranks"),
    "srun axolotl train c.yml --debug": (
        "script", ["run_axolotl_cli_train.py", "c.yml", "--debug"], {}, "axolotl starts no ranks: lumi-moai starts one"),
    "srun singularity run i.sif litgpt pretrain pythia-14m": (
        "script", ["run_litgpt.py", "pretrain", "pythia-14m"], {}, "the module litgpt needs a file, run_litgpt.py"),
    "srun deepspeed --include localhost:0,1 --module pkg.train": (
        "script", ["run_pkg_train.py"], {}, "not taken over from deepspeed: --include localhost:0,1;"),
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_every_start_of_a_program(here, start):  # noqa: F811
    kind, command, env, sentence = STARTS[start]
    (here / "pkg").mkdir()
    (here / "pkg" / "here.py").write_text("print(1)\n")
    (here / "job.sh").write_text(SCRIPT.split("module load", 1)[0] + start + "\n")
    done = run("import", "job.sh", "--write", "--json")
    values = json.loads(done.stdout)
    assert values["submit"][-len(command) :] == command
    settings = values["settings"]
    assert settings["env"] == env
    assert (settings.get("launcher"), settings.get("parallel")) == (
        "torchrun" if kind == "torchrun" else None,
        "script" if kind == "script" else None,
    )
    assert sentence in "\n".join(values["differences"])
    (here / command[0]).write_text("print(1)\n")
    rendered = run("render", *values["submit"][2:])
    assert rendered.exit_code == 0, rendered.stderr
    assert command[0].rpartition("/")[2] in rendered.stdout


@pytest.mark.parametrize("program", ["axolotl", "tune", "./prog"])
def test_the_program_that_is_none_of_python_is_named(here, program):  # noqa: F811
    (here / "job.sh").write_text(SCRIPT.split("module load", 1)[0] + f"srun {program} run x.yaml\n")
    done = run("import", "job.sh")
    assert done.exit_code == 1
    assert f"starts {program}, and no Python program" in done.stderr
