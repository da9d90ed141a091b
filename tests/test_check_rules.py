"""The rules: each fires on its mistake, stays silent on what is right, and is silent after `--fix`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import nasty
from test_render import ALL, script_for

from lumi_moai import catalog
from lumi_moai.check import RULES, check, fixed, read
from lumi_moai.resources import root

LUMI, DELTA = catalog.site("lumi"), catalog.site("delta")
MASKS = "0xfe000000000000,0xfe00000000000000,0xfe0000,0xfe000000,0xfe,0xfe00,0xfe00000000,0xfe0000000000"
LINEAR = "0xfe,0xfe00,0xfe0000,0xfe000000,0xfe00000000,0xfe0000000000,0xfe000000000000,0xfe00000000000000"


def job(*body, partition="standard-g", nodes=1, tasks=8, devices=8, cpus=7, mem="480G", time="01:00:00", more=""):
    head = {"account": "project_465000001", "partition": partition, "nodes": nodes, "ntasks-per-node": tasks,
            "gpus-per-node": devices, "cpus-per-task": cpus, "mem": mem, "time": time}  # fmt: skip
    lines = [f"#SBATCH --{name}={value}" for name, value in head.items() if value is not None]
    extra = [f"#SBATCH {line}" for line in more.split("\n") if line]
    return "\n".join(["#!/bin/bash", *lines, *extra, "", *body]) + "\n"


BOUND = f"srun --cpu-bind=mask_cpu:{MASKS} python train.py"
NET = "export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3"
ADDRESS = 'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n1)'
PORT = "export MASTER_PORT=$((10000 + SLURM_JOB_ID % 10000))"
TORCHRUN = "srun torchrun --nnodes=$SLURM_NNODES --nproc-per-node=8 --rdzv-backend=c10d train.py"
LAIF = "/appl/local/laifs/containers/lumi-multitorch-full-u24r70f21m50t210-20260415_130625.sif"


def small(*body, **changed):
    return job(*(body or ("srun python train.py",)),
               **{"partition": "small-g", "tasks": 1, "devices": 1, "mem": "60G", **changed})  # fmt: skip


def two(*body, **changed):
    return job(NET, *body, **{"nodes": 2, "more": "--open-mode=append", **changed})


GOOD = {
    "one device": small(),
    "one node, bound": job(BOUND),
    "two nodes, bound": two(ADDRESS, PORT, "export WORLD_SIZE=$SLURM_NTASKS", BOUND),
    "two nodes, torchrun": two(ADDRESS, PORT, TORCHRUN, tasks=1, cpus=56),
    "one map entry a task": job("srun --cpu-bind=map_cpu:49,57,17,25,1,9,33,41 python train.py"),
    "masks from a letter": job("c=fe", 'M="0x${c}000000000000,0x${c}00000000000000,0x${c}0000,0x${c}000000"',
                               'M+=",0x${c},0x${c}00,0x${c}00000000,0x${c}0000000000"',
                               "srun --cpu-bind=mask_cpu:$M python train.py"),
    "both threads of a core": job("srun --cpu-bind=mask_cpu:" + ",".join(
        hex(int(m, 16) | int(m, 16) << 64) for m in MASKS.split(",")) + " python train.py"),
    "two devices a task": job("srun --cpu-bind=mask_cpu:0xfefe000000000000,0xfefe0000,0xfefe,0xfefe00000000 python t.py",
                              tasks=4, cpus=14),
    "linear cores, devices remapped by srun": job(f"srun --cpu-bind=mask_cpu:{LINEAR} --gpu-bind=map:4,5,2,3,6,7,0,1"
                                                  " --gres-flags=allow-task-sharing python train.py"),
    "linear cores, devices remapped by a wrapper": job(
        "cat << EOF > select.sh", "#!/bin/bash", 'ORDER=(4 5 2 3 6 7 0 1)', "export ROCR_VISIBLE_DEVICES=\\${ORDER[\\$SLURM_LOCALID]}",
        'exec "\\$@"', "EOF", f"srun --cpu-bind=mask_cpu:{LINEAR} ./select.sh python train.py"),
    "a cache made on every node": two(
        "export MIOPEN_USER_DB_PATH=/tmp/m-$SLURM_JOB_ID", "srun --ntasks-per-node=1 mkdir -p $MIOPEN_USER_DB_PATH", BOUND),
    "an image run as it should be": small(f"srun singularity run {LAIF} python train.py"),
    "cores of both threads": job(BOUND, cpus=14, more="--hint=multithread"),
    "a slice's worth": small(cpus=8, mem="64G"),
    "cpu work": "#!/bin/bash\n#SBATCH -A project_465000001 -p small -t 10 -c 4 --mem=8G\npython convert.py\n",
    "an array of indices": small("srun python train.py $SLURM_ARRAY_TASK_ID", more="--array=0-9"),
    "ranks from the tasks": job(f"srun --cpu-bind=mask_cpu:{MASKS} bash -c 'RANK=$SLURM_PROCID python train.py'"),
    "a script that submits itself": small("if [ -z $SLURM_JOB_ID ]; then", "mkdir -p logs", 'sbatch "$0"', "exit", "fi",
                                          "srun python train.py", more="--output=logs/%j.out"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_is_left_alone(name):
    assert [f"{f.rule.id} {f.hit.message}" for f in check(read(GOOD[name], "job.sh"), LUMI)] == []


# rule: script in which it fires, and whether it has a fix.
FIRES = {
    "LM101": [(small("set -e", "#SBATCH --exclude=x", "srun python t.py"), True), (small("set -e", "#SBATCH --mem=1G"), False)],
    "LM102": [(small().replace("\n", "\r\n"), True)],
    "LM103": [(small(more="--qoss=debug"), True), (small(more="--zzz=1"), False)],
    "LM104": [(small(more="--comment='open"), False)],
    "LM105": [(small(more="--job-name=$NAME"), False)],
    "LM106": [(small(time="1hour"), False), (small(nodes="##N##"), False), (small(mem="lots"), False),
              (small(more="-N=1"), True), (small(nodes=None, more="-nodes=1"), True), (small(more="-q"), False), (small(time="90m"), False), (small(mem="60.5G"), False)],
    "LM107": [(small().removeprefix("#!/bin/bash\n"), True), ("\ufeff" + small(), True)],
    "LM108": [("#!/usr/bin/fish\n#SBATCH -p small -A project_465000001 -t 5\nset x 1\n", False),
              ("#!/bin/tcsh\n#SBATCH -p small -A project_465000001 -t 5\nsetenv X 1\n", False)],
    "LM109": [(small("# SBATCH --exclusive"), False)],
    "LM110": [(small(more="hetjob\n-p small"), False)],
    "LM111": [(small(more="8"), False)],
    "LM112": [(small("if then fi )", "srun python t.py"), False)],
    "LM201": [(small(partition="small-gpu"), False), (small(partition=None), False)],
    "LM202": [(small().replace("project_465000001", "project_x"), False),
              (small().replace("#SBATCH --account=project_465000001\n", ""), False)],
    "LM203": [(small(time=None), False)],
    "LM204": [(small(time="12:00"), False)],
    "LM205": [(two(BOUND, nodes=2000), False)],
    "LM206": [(job(BOUND, cpus=8), True), (job(BOUND, tasks=64, cpus=1), False)],
    "LM207": [(job(BOUND, mem="512G"), True), (job(BOUND, mem=None, more="--mem-per-gpu=64G"), True)],
    "LM208": [(small(devices=16), False)],
    "LM209": [(small(devices=None), False)],
    "LM210": [(small(time="4-00:00:00", more="--signal=USR1@120"), True)],
    "LM301": [(small(cpus=16), False)],
    "LM302": [(small(mem="128G"), False)],
    "LM303": [(job("srun python t.py", devices=1, tasks=1, mem="60G"), False)],
    "LM304": [(small(more="--exclusive"), False)],
    "LM305": [(small(devices=8, cpus=56, mem="480G"), False)],
    "LM306": [(job(BOUND, mem="0"), True)],
    "LM307": [(small(devices=4, cpus=28, mem=None), True)],
    "LM401": [(job(BOUND, devices=None, more="--gpus-per-task=1"), False),
              (job(f"srun --gpus-per-task=1 --cpu-bind=mask_cpu:{MASKS} python t.py"), False)],
    "LM402": [(two(BOUND, devices=None, partition="dev-g", more="--gpus=8\n--open-mode=append"), True)],
    "LM403": [(job("srun torchrun --nproc-per-node=$SLURM_GPUS_PER_NODE train.py", devices="mi250:8", tasks=1, cpus=56), False)],
    "LM404": [(small("export ROCR_VISIBLE_DEVICES=0", "export HIP_VISIBLE_DEVICES=0", "srun python train.py"), False)],
    "LM501": [(job(f"srun --cpu-bind=mask_cpu:{MASKS.replace('fe', 'ff')} python t.py"), True),
              (job("srun --cpu-bind=map_cpu:48,56,16,24,0,8,32,40 python t.py"), True)],
    "LM502": [(job(f"srun --cpu-bind=mask_cpu:{LINEAR} python train.py"), True),
              (job("srun --cpu-bind=map_cpu:1,9,17,25,33,41,49,57 python train.py"), True),
              (job(f"srun --cpu-bind=mask_cpu:{MASKS} --gpu-bind=map:4,5,2,3,6,7,0,1 python train.py"), False)],
    "LM503": [(small(f"srun --cpu-bind=mask_cpu:{MASKS} python t.py", tasks=2, devices=2, mem="120G"), False)],
    "LM504": [(job("srun python train.py"), True)],
    "LM505": [(job("srun python t.py", tasks=1, cpus=8), True), (small(cpus=1), True)],
    "LM506": [(job("srun python t.py", tasks=1, cpus=None), True), (small(cpus=None), True)],
    "LM508": [(small("srun python t.py --num-workers 16"), False), (small("srun python t.py --num-workers=0"), False)],
    "LM601": [(two("python train.py", tasks=1, cpus=56), False)],
    "LM602": [(two(ADDRESS, "export WORLD_SIZE=32", BOUND), False),
              (job("srun torchrun --nproc-per-node=8 t.py"), False),
              (two("srun torchrun --nnodes=4 --nproc-per-node=8 t.py", tasks=1, cpus=56), False),
              (two("srun torchrun --standalone --nproc-per-node=8 t.py", tasks=1, cpus=56), False),
              (job("srun torchrun --nproc-per-node=4 t.py", tasks=1, cpus=56), False)],
    "LM603": [(small("export MASTER_PORT=29500", "srun python t.py"), True),
              (job("srun torchrun --nproc-per-node=8 --master-port=29500 t.py", tasks=1, cpus=56), False)],
    "LM604": [(two("export MASTER_ADDR=localhost", PORT, BOUND), True),
              (two(f"srun --cpu-bind=mask_cpu:{MASKS} bash -c 'export MASTER_ADDR=$(hostname); python t.py'"), False)],
    "LM605": [(job("export RANK=$SLURM_PROCID", BOUND), False),
              (job("cat > run.sh << EOF", "export RANK=$SLURM_PROCID", 'exec "\\$@"', "EOF", BOUND.replace("python", "bash run.sh python")), False)],
    "LM606": [(job(f'srun --cpu-bind=mask_cpu:{MASKS} bash -c "RANK=$SLURM_PROCID python t.py"'), True),
              (job("cat > run.sh << EOF", "python t.py --rank $SLURM_PROCID", "EOF", BOUND.replace("python", "bash run.sh")), False),
              (small(f'srun singularity run {LAIF} bash -c "$WITH_CONDA; python t.py"'), True)],
    "LM607": [(small("srun bash -c 'python t.py --id \\$SLURM_JOB_ID'"), True)],
    "LM608": [(small("f() {", "  exec $*", "}", "srun python t.py"), True)],
    "LM609": [(two(ADDRESS, BOUND.replace("srun", "srun --nodes=4")), False)],
    "LM701": [(job(ADDRESS, PORT, BOUND, nodes=2, more="--open-mode=append"), True),
              (job(ADDRESS, PORT, "export NCCL_SOCKET_IFNAME=ib0", BOUND, nodes=2, more="--open-mode=append"), False)],
    "LM702": [(small("export NCCL_NET_GDR_LEVEL=PHB", f"srun singularity run {LAIF} python t.py"), True),
              (small("export MIOPEN_USER_DB=/tmp/x", "srun python t.py"), True)],
    "LM703": [(small(more="--mail-type=END"), True)],
    "LM704": [(small("module use /appl/local/csc/modulefiles", "module load pytorch", "srun python t.py"), False)],
    "LM705": [(small(f"srun singularity exec {LAIF} python t.py"), True)],
    "LM801": [(small("export MIOPEN_USER_DB_PATH=/scratch/project_465000001/m", "srun python t.py"), False)],
    "LM802": [(two("export TRITON_CACHE_DIR=$(mktemp -d)", BOUND), False),
              (two("export TRITON_CACHE_DIR=/tmp/t", "mkdir -p /tmp/t", BOUND), False)],
    "LM803": [(small("export HF_HOME=$HOME/hf", "srun python t.py"), False)],
    "LM804": [(two("source /scratch/project_465000001/venv/bin/activate", BOUND), False)],
    "LM805": [(small("srun python t.py --data=/users/me/imagenet"), False), (small("srun python t.py ~/data"), False)],
    "LM901": [(small("export HF_TOKEN=hf_" + "a1" * 17, "srun python t.py"), False)],
    "LM902": [(small(more="--output=logs/%j.out"), False)],
    "LM903": [(small(time="1-00:00:00"), False)],
    "LM904": [(small(more="--exclude=nid005013"), False)],
    "LM905": [(two(BOUND, more="--output=x-%j.log"), False)],
    "LM906": [(small("srun ./launch.sh"), False)],
}  # fmt: skip
# The same near a mistake, and right: the rule in question stays silent.
SILENT = {
    "LM101": "set -e\ncat << EOF > inner.sh\n#!/bin/bash\n#SBATCH --mem=1G\nEOF\n",
    "LM106": small(more="--exclusive\n--signal=B:USR1@120\n-J a=b\n--nodes=1-1"), "LM111": small(more="-J a # b"),
    "LM105": "cat << EOF > inner.sh\n#!/bin/bash\n#SBATCH -J $NAME -p small-g\nEOF\n",
    "LM102": small("printf 'a\rb'", "srun python train.py"), "LM103": small(more="--reserv=x\n--tasks-per-node=1"),
    "LM104": small(more='--comment="it\'s # no end"'), "LM107": small().replace("#!/bin/bash", "#! /usr/bin/env -S bash -e"),
    "LM108": small().replace("#!/bin/bash", "#!/usr/bin/env -S zsh -e"),
    "LM109": small("# SBATCH lines end here", "##SBATCH --exclusive"), "LM110": small(more="-J hetjob", time="1:0:0"),
    "LM112": small("A=(1 2); [[ $A =~ ^[0-9]+$ ]] && case $A in (1|2) x;; *) y <(z);; esac", "srun python t.py"),
    "LM205": two(BOUND, nodes=1024), "LM207": job(BOUND, mem=None, more="--mem-per-gpu=60G"),
    "LM208": small(devices="mi250:8", cpus=56, mem="480G"), "LM209": small(devices=None, more="--gres=gpu:mi250:1"),
    "LM501": job("srun --cpu-bind=mask_cpu:" + MASKS.replace("fe", "7e") + " python t.py", cpus=6),
    "LM703": small(more="--comment=mail-type"), "LM904": small(more="--exclude=$BAD"),
    "LM802": two("export TRITON_CACHE_DIR=/tmp/t", "srun --ntasks-per-node=1 mkdir -p /tmp/t", BOUND),
    "LM201": small(partition="dev-g"), "LM202": small().replace("project_4", "Project_4"),
    "LM203": small(time="5"), "LM204": small(time="0:12:00"), "LM206": job(BOUND, cpus=7), "LM210": small(time="3-0"),
    "LM301": small(cpus=8), "LM302": small(mem="64G"), "LM303": small(), "LM304": small(more="--exclusive=user"),
    "LM305": small(devices=8, cpus=56, mem="480G", time="2-12:00:00"), "LM306": small(mem="0"),
    "LM307": small(mem=None), "LM401": job(BOUND, devices=None, more="--gpus-per-task=1\n--gpu-bind=none"),
    "LM402": small(devices=None, more="--gpus=1"),
    "LM403": job("srun torchrun --nproc-per-node=$SLURM_GPUS_ON_NODE t.py", devices="mi250:8", tasks=1, cpus=56),
    "LM404": small("export HIP_VISIBLE_DEVICES=0 CUDA_VISIBLE_DEVICES=0", "srun python t.py"),
    "LM502": job(f"srun --cpu-bind=mask_cpu:{LINEAR} ./wrapper.sh python train.py"),
    "LM503": job(f"srun --cpu-bind=mask_cpu:{MASKS} python t.py", partition="dev-g"),
    "LM504": job("export SLURM_CPU_BIND=mask_cpu:" + MASKS, "srun python train.py"),
    "LM505": job("srun -c 56 python t.py", tasks=1, cpus=8),
    "LM506": job(f"srun --cpu-bind=mask_cpu:{MASKS} python t.py", cpus=None),
    "LM508": small("srun python t.py --num-workers 7"),
    "LM601": job("accelerate launch --num_processes 8 train.py"),
    "LM602": two(ADDRESS, "export WORLD_SIZE=$((SLURM_NNODES*8))", BOUND),
    "LM603": small("export MASTER_PORT=$((12000 + SLURM_JOB_ID % 1000))", "srun python t.py"),
    "LM604": two("export MASTER_ADDR=$(hostname)", PORT, BOUND),
    "LM605": job(f"srun --cpu-bind=mask_cpu:{MASKS} bash -c 'export RANK=$SLURM_PROCID; python t.py'"),
    "LM606": job(f'srun --cpu-bind=mask_cpu:{MASKS} bash -c "RANK=\\$SLURM_PROCID python t.py"'),
    "LM607": small("srun bash -c \"python t.py --id \\$SLURM_JOB_ID\""), "LM608": 'exec "$@"\n',
    "LM609": two(ADDRESS, BOUND.replace("srun", "srun --nodes=1 --ntasks=8")),
    "LM702": small("export NCCL_NET_GDR_LEVEL=PHB", "srun singularity run old-rocm-6.2.sif python t.py"),
    "LM704": small("module use /appl/local/csc/modulefiles", "module load gromacs LUMI PyTorch/2.7", "srun python t.py"),
    "LM705": small(f"srun singularity run {LAIF} python t.py"),
    "LM801": small("export MIOPEN_USER_DB_PATH=/tmp/m", "srun python t.py"),
    "LM803": small("export HF_HOME=/scratch/project_465000001/hf", "srun python t.py"),
    "LM804": small("source /scratch/project_465000001/venv/bin/activate", "srun python t.py"),
    "LM805": small("srun python /users/me/t.py --data=/scratch/x"),
    "LM901": small("export HF_TOKEN=$(cat ~/.token)", "export WANDB_API_KEY=$KEY", "srun python t.py"),
    "LM902": small(more="--output=%j.out"), "LM903": small(time="1-00:00:00", more="--signal=USR2@120"),
    "LM905": two(BOUND, more="--output=x-%j.log\n--no-requeue"), "LM906": small("source env/bin/activate", "srun python t.py"),
}  # fmt: skip
# More that only looks like a mistake.
QUIET = [
    ("LM602", two(ADDRESS, "export WORLD_SIZE=16", "srun accelerate launch --num_processes 16 t.py", tasks=1, cpus=56)),
    ("LM402", two(BOUND, devices=None, more="--gpus=16\n--open-mode=append")),
    ("LM602", two(ADDRESS, "export WORLD_SIZE=16", "srun deepspeed t.py", tasks=1, cpus=56)),
    ("LM306", "#!/bin/bash\n#SBATCH -A project_465000001 -p standard -t 10 -N 1 --mem=0\nsrun python t.py\n"),
    ("LM607", small("srun bash -c 'singularity run x.sif bash -c \"python t.py --id \\$SLURM_JOB_ID\"'")),
    ("LM605", two("export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID", TORCHRUN, tasks=1, cpus=56)),
    ("LM605", job("cat > run.sh << 'EOF'", "export RANK=$SLURM_PROCID", 'exec "$@"', "EOF", BOUND.replace("python", "bash run.sh python"))),
    ("LM606", job("cat > run.sh << EOF", "python t.py --rank \\$SLURM_PROCID", "EOF", BOUND.replace("python", "bash run.sh"))),
    ("LM701", two("exec > log.txt 2>&1", BOUND)),
]  # fmt: skip
DELTA_JOB = """#!/bin/bash
#SBATCH -A bbka-delta-gpu -p gpuA100x4 -t 10 --nodes=1 --ntasks-per-node=4 --gpus-per-node=4 --mem=200G
#SBATCH --cpus-per-task=16
srun {} python train.py
"""
CASES = [(rule, text, fix) for rule, many in FIRES.items() for text, fix in many]


def ids(text, site=LUMI):
    return [finding.rule.id for finding in check(read(text, "job.sh"), site)]


def all_fixed(text, site=LUMI):
    for _ in range(8):
        text, done = fixed(text, check(read(text, "job.sh"), site), "job.sh")
        if not done:
            return text
    raise AssertionError("fixes go round in a circle")


def test_every_rule_has_its_three_tests():
    """One that fires, one that does not, and where it can be fixed one after it; LM507 has a function of its own."""
    ours = {rule.id for rule in RULES}
    assert ours == {*FIRES, "LM507"} == {*SILENT, *(rule for rule, _ in QUIET), "LM507"}
    assert len(ours) == len({rule.name for rule in RULES}) == len(RULES)
    tested = {rule for rule, _, fix in CASES if fix} | {"LM507"}
    page = (root("configs").parent / "docs" / "check.md").read_text().splitlines()
    assert tested == {
        line.split()[1] for line in page if line.startswith("| LM") and line.split("|")[4].strip() == "yes"
    }
    texts = [*(text for _, text, _ in CASES), *GOOD.values(), *SILENT.values()]
    assert tested >= {f.rule.id for text in texts for f in check(read(text, "job.sh"), LUMI) if f.hit.edits}


@pytest.mark.parametrize(("rule", "text", "fix"), CASES)
def test_a_rule_fires_on_its_mistake(rule, text, fix):
    found = [finding for finding in check(read(text, "job.sh"), LUMI) if finding.rule.id == rule]
    assert found
    assert bool(found[0].hit.edits) == fix


@pytest.mark.parametrize(("rule", "text"), [*SILENT.items(), *QUIET])
def test_a_rule_is_silent_on_what_only_looks_like_its_mistake(rule, text):
    assert rule not in ids(text)


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, text, fix in CASES if fix])
def test_after_the_fix_the_rule_is_silent_and_nothing_else_has_come_up(rule, text):
    after = all_fixed(text)
    assert rule not in ids(after)
    assert {"error"} & {f.severity for f in check(read(after, "job.sh"), LUMI)} <= {
        f.severity for f in check(read(text, "job.sh"), LUMI)
    }


def test_a_world_that_one_task_a_node_may_start_itself_is_a_note():
    text = two(ADDRESS, "export WORLD_SIZE=16", "srun python t.py", tasks=1, cpus=56)
    assert [f.severity for f in check(read(text, "job.sh"), LUMI) if f.rule.id == "LM602"] == ["note"]


def test_what_stands_below_a_redirection_is_judged():
    assert "LM604" in ids(two("exec > >(tee log.txt) 2>&1", "export MASTER_ADDR=localhost", PORT, BOUND))


def test_steps_need_their_cores_where_srun_does_not_take_them_over():
    text = DELTA_JOB.format("--cpu-bind=cores")
    assert "LM507" in ids(text, DELTA)
    assert "LM507" not in ids(DELTA_JOB.format("--cpus-per-task=16"), DELTA)
    assert "LM507" not in ids(job("srun python t.py"), LUMI)
    assert "srun --cpus-per-task=16 --cpu-bind=cores python" in all_fixed(text, DELTA)


def test_every_site_has_its_own_masks():
    assert "LM502" in ids(DELTA_JOB.format("--cpus-per-task=16 --cpu-bind=map_cpu:0,16,32,48"), DELTA)
    assert "LM502" not in ids(DELTA_JOB.format("--cpus-per-task=16 --cpu-bind=map_cpu:48,32,16,0"), DELTA)


def test_masks_for_a_part_of_the_devices_are_not_judged():
    text = job("srun --cpu-bind=mask_cpu:fe,fe00,fe0000,fe000000 python train.py", tasks=4, devices=4)
    assert "LM502" not in ids(text, LUMI)  # which of the devices these are is Slurm's choice


def test_the_right_device_is_named():
    (found,) = [f for f in check(read(FIRES["LM502"][0][0], "job.sh"), LUMI) if f.rule.id == "LM502"]
    assert "task 0 with device 0 is bound to cores 1-7, beside device 4, not 49-55" in found.hit.message


def test_what_costs_more_is_priced_with_the_cheaper_request():
    (found,) = [f for f in check(read(small(mem="128G", time="24:00:00"), "job.sh"), LUMI) if f.rule.id == "LM302"]
    assert (found.hit.cost.now, found.hit.cost.cheaper, found.hit.cost.unit) == (24, 12, "GPU-hours")


def test_a_secret_is_not_repeated():
    (found,) = [f for f in check(read(FIRES["LM901"][0][0], "job.sh"), LUMI) if f.rule.id == "LM901"]
    assert "a1a1" not in found.hit.message


@pytest.mark.parametrize("helper", ["source env.sh", "module load x"])
def test_what_an_unread_helper_may_set_is_a_note_at_most(helper):
    text = two(helper, ADDRESS, PORT, "srun ./launch.sh").replace(NET, "")
    assert not {"error", "warning"} & {f.severity for f in check(read(text, "job.sh"), LUMI)}


def test_a_helper_at_hand_is_judged_with_the_script():
    files = {"launch.sh": "#!/bin/bash\nexport NCCL_NET_GDR_LEVEL=3\nsingularity exec " + LAIF + " python t.py\n"}
    text = job(f"srun --cpu-bind=mask_cpu:{MASKS} ./launch.sh")
    found = check(read(text, "job.sh", files.get), LUMI)
    assert [(f.rule.id, f.hit.place.path, f.hit.place.line) for f in found] == [
        ("LM702", "launch.sh", 2), ("LM705", "launch.sh", 3)]  # fmt: skip


def test_a_script_that_another_writes_is_judged_at_its_own_lines():
    text = "#!/bin/bash\ncat << 'EOF' > inner.sh\n" + small(cpus=16) + "EOF\nsbatch inner.sh\n"
    (found,) = [f for f in check(read(text, "job.sh"), LUMI) if f.rule.id == "LM301"]
    assert text.split("\n")[found.hit.place.line - 1].startswith("#SBATCH --cpus-per-task=16")


def test_another_cluster_is_one_sentence():
    text = small(partition="gpu_p5", cpus=64, mem="9000G", time="100:00:00")
    assert ids(text) == ["LM201"]


@pytest.mark.parametrize(("site", "name", "mode"), ALL)
def test_our_own_scripts_are_clean(site, name, mode):
    text = script_for(site, name, launcher=mode).text
    found = check(read(text, "job.sh"), catalog.site(site), lambda _folder: True)
    assert [f"{f.rule.id} {f.hit.place.line} {f.hit.message}" for f in found] == []


def test_rules_name_a_source_and_sites_decode():
    assert all(rule.source and rule.reason and rule.title for rule in RULES)
    assert {path.stem for path in (root("configs") / "sites").glob("*.yaml")} == set(catalog.site_names())


pieces = st.sampled_from([line for _, text, _ in CASES for line in text.split("\n")])
mixed = st.lists(st.one_of(pieces, pieces, pieces, nasty), max_size=25).map("\n".join)


@settings(max_examples=250, deadline=None)
@given(mixed)
def test_no_script_makes_check_raise_and_after_the_fix_nothing_has_one(text):
    after = all_fixed(text)
    assert not [f for f in check(read(after, "job.sh"), LUMI) if f.hit.edits]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([text for _, text, _ in CASES]), st.data())
def test_a_script_cut_anywhere_is_still_judged(text, data):
    check(read(text[: data.draw(st.integers(0, len(text)))], "job.sh"), LUMI)


def test_the_page_lists_every_rule_with_its_severity():
    page = (root("configs").parent / "docs" / "check.md").read_text()
    for rule in RULES:
        assert f"| {rule.id} `{rule.name}` | {rule.severity} | {rule.title} |" in page


def test_a_late_option_that_is_given_above_in_another_spelling_stays_where_it_is():
    (found,) = [f for f in check(read(small("set -e", "#SBATCH -p dev-g"), "job.sh"), LUMI) if f.rule.id == "LM101"]
    assert not found.hit.edits


def test_a_directive_is_added_to_the_first_part_of_a_job_of_two():
    after = all_fixed(small(cpus=None, more="hetjob\n#SBATCH -p small".replace("#SBATCH ", "")))
    lines = after.split("\n")
    assert lines.index("#SBATCH --cpus-per-task=7") < lines.index("#SBATCH hetjob")
