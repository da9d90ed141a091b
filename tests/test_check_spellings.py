"""The rules on the same mistake in many spellings: each of these is certain, so each is found; and what only looks so."""

import pytest
from test_check_rules import (
    ADDRESS,
    BOUND,
    CASES,
    LAIF,
    LINEAR,
    LUMI,
    MASKS,
    NET,
    PORT,
    TORCHRUN,
    all_fixed,
    job,
    small,
    two,
)

from lumi_moai.check import check, read

FOUND = [
    ("LM504", job("srun -N1 -n8 -c7 singularity exec x.sif python train.py")),
    ("LM504", job("srun apptainer exec --rocm x.sif python3 -m pkg.train")),
    ("LM502", job(f"export SLURM_CPU_BIND=mask_cpu:{LINEAR}","srun python t.py")),
    ("LM502", job(f"srun --cpu-bind=quiet,mask_cpu:{LINEAR} python t.py")),
    ("LM502", job(f'BIND="--cpu-bind=mask_cpu:{LINEAR}"','srun $BIND python t.py')),
    ("LM502", job(f'ARGS=(--cpu-bind=mask_cpu:{LINEAR} -l)','srun "${ARGS[@]}" python t.py')),
    ("LM502", job(f'run() {{ srun --cpu-bind=mask_cpu:{LINEAR} "$@"; }}','run python t.py')),
    ("LM501", job("srun --cpu-bind=map_cpu:0,8,16,24,32,40,48,56 python t.py")),
    ("LM501", job("srun --cpu-bind=map_cpu:0x31,0x39,0x11,0x19,0x0,0x9,0x21,0x29 python t.py")),
    ("LM503", small("srun --cpu-bind=map_cpu:49,57 python t.py", tasks=2, devices=2, mem="120G")),
    ("LM206", small(cpus=57)), ("LM206", job(BOUND, tasks=None, cpus=8, more="-n 8")),
    ("LM206", job(BOUND, tasks=None, cpus=None, more="-n 64\n-N 1")),
    ("LM207", small(mem="491521M")), ("LM207", small(mem=None, more="--mem-per-cpu=70G")),
    ("LM207", job(BOUND, mem="1T")),
    ("LM208", small(devices=None, more="--gres=gpu:mi250:9")), ("LM208", small(devices=None, more="-G 9 -N 1")),
    ("LM301", small(cpus=None, more="-c 16")), ("LM301", small(tasks=4, cpus=7)),
    ("LM302", small(mem=None, more="--mem-per-cpu=20G")),
    ("LM302", small(mem="0")),
    ("LM303", job("srun python t.py", devices=None, tasks=1, cpus=7, mem=None, more="--gres=gpu:2")),
    ("LM401", job("srun --ntasks-per-gpu=1 python t.py")), ("LM401", small(devices=2, tasks=2, mem="120G", more="--cpus-per-gpu=7")),
    ("LM402", two(BOUND, devices=None, partition="small-g", more="-G 4\n--open-mode=append")),
    ("LM404", job("export ROCR_VISIBLE_DEVICES=$SLURM_LOCALID CUDA_VISIBLE_DEVICES=$SLURM_LOCALID", BOUND)),
    ("LM404", job(f"srun --cpu-bind=mask_cpu:{MASKS} bash -c 'export ROCR_VISIBLE_DEVICES=$SLURM_LOCALID; HIP_VISIBLE_DEVICES=$SLURM_LOCALID python t.py'")),
    ("LM404", job("export ROCR_VISIBLE_DEVICES=0,1",f"srun --cpu-bind=mask_cpu:{MASKS} singularity run --env HIP_VISIBLE_DEVICES=0 {LAIF} python t.py")),
    ("LM602", job("srun python -m torch.distributed.run --nproc_per_node=8 t.py")),
    ("LM602", job("srun torchrun --nproc-per-node=gpu t.py")),
    ("LM602", job("srun torchrun --nproc-per-node=auto t.py")),
    ("LM602", two("srun --ntasks-per-node=1 torchrun --nnodes 2 --nproc_per_node 8 t.py", tasks=None, more="-n 16\n--open-mode=append")),
    ("LM602", two("srun torchrun --nproc_per_node 8 t.py", tasks=1, cpus=56)),
    ("LM602", two(ADDRESS,PORT,"srun torchrun --nnodes=1:1 --nproc_per_node 8 t.py", tasks=1, cpus=56)),
    ("LM602", job(ADDRESS,PORT,"export WORLD_SIZE=1",BOUND)),
    ("LM602", job(ADDRESS,PORT,f"srun --cpu-bind=mask_cpu:{MASKS} bash -c 'export WORLD_SIZE=4 RANK=$SLURM_PROCID; python t.py'")),
    ("LM604", two("MASTER_ADDR=127.0.0.1","export MASTER_ADDR",PORT,BOUND)),
    ("LM604", two("srun torchrun --nnodes=2 --nproc-per-node=8 --master_addr=localhost t.py", tasks=1,cpus=56)),
    ("LM604", two(f"srun --cpu-bind=mask_cpu:{MASKS} bash -c 'MASTER_ADDR=`hostname` python t.py'")),
    ("LM604", two("srun torchrun --nnodes=2 --nproc-per-node=8 --rdzv_backend=c10d --rdzv_endpoint=localhost:29400 t.py", tasks=1,cpus=56)),
    ("LM605", job("RANK=$SLURM_PROCID","export RANK",BOUND)),
    ("LM605", job("export RANK=${SLURM_PROCID:-0}",BOUND)),
    ("LM605", job("R=$SLURM_PROCID","export RANK=$R",BOUND)),
    ("LM605", job(f"RANK=$SLURM_PROCID {BOUND}")),
    ("LM606", job(BOUND+" --local_rank $SLURM_LOCALID")),
    ("LM606", job(BOUND+" --local_rank=${SLURM_LOCALID}")),
    ("LM606", two("srun torchrun --node_rank=$SLURM_NODEID --nnodes=2 --nproc-per-node=8 --master_addr=$A t.py",tasks=1,cpus=56)),
    ("LM606", two("NODE_RANK=$SLURM_NODEID","srun torchrun --node_rank=$NODE_RANK --nnodes=2 --nproc-per-node=8 t.py",tasks=1,cpus=56)),
    ("LM606", job(f'srun --cpu-bind=mask_cpu:{MASKS} env RANK=$SLURM_PROCID python t.py')),
    ("LM606", job(f'srun --cpu-bind=mask_cpu:{MASKS} --export=ALL,RANK=$SLURM_PROCID python t.py')),
    ("LM606", job(f'srun --cpu-bind=mask_cpu:{MASKS} singularity run --env RANK=$SLURM_PROCID {LAIF} python t.py')),
    ("LM601", two("singularity run x.sif torchrun --nproc-per-node 8 t.py",tasks=1,cpus=56)),
    ("LM601", job("singularity run x.sif python t.py")),
    ("LM601", two("torchrun --nnodes 2 --nproc-per-node 8 t.py",tasks=1,cpus=56)),
    ("LM603", small("export MASTER_PORT='29500'","srun python t.py")),
    ("LM603", small("srun torchrun --rdzv-endpoint localhost:29500 t.py")),
    ("LM603", small("srun accelerate launch --main_process_port 29500 t.py")),
    ("LM603", small("P=29500","srun torchrun --master_port $P t.py")),
    ("LM702", small("SINGULARITYENV_NCCL_NET_GDR_LEVEL=PHB","export SINGULARITYENV_NCCL_NET_GDR_LEVEL",f"srun singularity run {LAIF} python t.py")),
    ("LM702", small(f"srun singularity run --env NCCL_NET_GDR_LEVEL=3 {LAIF} python t.py")),
    ("LM702", small(f"srun singularity run {LAIF} bash -c 'export NCCL_NET_GDR_LEVEL=3; python t.py'")),
    ("LM705", small(f"SIF={LAIF}","srun singularity exec $SIF python t.py")),
    ("LM705", small(f"srun apptainer exec -B /x {LAIF} python t.py")),
    ("LM705", small("srun singularity run /appl/local/containers/sif-images/lumi-pytorch-rocm-6.2.4.sif python t.py")),
    ("LM704", small("module use /appl/local/csc/modulefiles; module load pytorch/2.4","srun python t.py")),
    ("LM704", small("ml pytorch","srun python t.py")),
    ("LM704", small("pip install torch --index-url https://download.pytorch.org/whl/rocm7.2","srun python t.py")),
    ("LM704", small("python -m pip install torch --index-url https://download.pytorch.org/whl/rocm7.2","srun python t.py")),
    ("LM801", small("export TRITON_CACHE_DIR=$HOME/.triton","srun python t.py")),
    ("LM801", small("export SCRATCH=/scratch/project_1","export TRITON_CACHE_DIR=$SCRATCH/t","srun python t.py")),
    ("LM803", small("export HF_HOME=~/hf","srun python t.py")),
    ("LM803", small("export TORCH_HOME=/users/me/t","srun python t.py")),
    ("LM805", small("srun python t.py --data $HOME/imagenet")),
    ("LM901", small("export WANDB_API_KEY="+"0a"*20,"srun python t.py")),
    ("LM901", small("wandb login "+"0a"*20,"srun python t.py")),
    ("LM901", small("huggingface-cli login --token hf_"+"Ab"*17,"srun python t.py")),
    ("LM901", small("export OPENAI_API_KEY=sk-proj-"+"a1"*20,"srun python t.py")),
    ("LM902", small(more="-o logs/%x.out")), ("LM902", small(more="-e logs/a/%x.err")),
    ("LM508", small("srun python t.py --num_workers=16")),
    ("LM508", small("srun torchrun --nproc-per-node=1 t.py --num-workers 16")),
    ("LM506", job("srun python t.py", tasks=8, cpus=None)),
    ("LM505", job("srun python t.py", tasks=4, cpus=7)),
    ("LM701", two(BOUND).replace(NET+"\n","")),
    ("LM701", two("unset NCCL_SOCKET_IFNAME",BOUND)),
    ("LM701", two(BOUND).replace(NET,"NCCL_SOCKET_IFNAME=hsn0")),
    ("LM403", job("export LOCAL_WORLD_SIZE=$SLURM_GPUS_PER_NODE",BOUND,devices="mi250:8")),
    ("LM609", job("srun -N 2 -n 16 python t.py")),
    ("LM101", "#!/bin/bash\n\nmodule purge\n#SBATCH -A project_465000001 -p small-g -t 10\nsrun python t.py\n"),
    ("LM201", small(partition="standardg")), ("LM210", small(time="73:00:00")), ("LM210", small(time="5000")),
    ("LM202", small().replace("project_465000001","465000001")),
    ("LM209", job("srun python t.py", devices=None, tasks=1, cpus=56)),
]  # fmt: skip
QUIET = [
    ("LM502", job("srun --ntasks 2 --ntasks-per-node 2 --cpu-bind=map_cpu:49,57 python two.py")),
    ("LM602", two(ADDRESS, PORT, "srun torchrun --nproc_per_node=8 $ARGS t.py", tasks=1, cpus=56)),
    ("LM602", two("export PET_NNODES=2", "srun torchrun --nproc_per_node=8 t.py", tasks=1, cpus=56)),
    ("LM602", two(ADDRESS, PORT, "srun torchrun --nnodes=2:2 --nproc_per_node=gpu t.py", tasks=1, cpus=56)),
    ("LM602", job("srun --gpus-per-task=1 torchrun --nproc-per-node=gpu t.py")),
    ("LM603", small("export MASTER_PORT=$((10000 + ${SLURM_JOB_ID:-0} % 10000))", "srun python t.py")),
    ("LM206", job("srun --overcommit python t.py", tasks=64, cpus=None, more="--overcommit")),
    ("LM508", small("srun torchrun --nproc-per-node=$N t.py --num-workers 16")),
    ("LM701", two("NCCL_SOCKET_IFNAME=hsn0", "export NCCL_SOCKET_IFNAME", BOUND).replace(NET + "\n", "")),
    ("LM701", two(f"NCCL_SOCKET_IFNAME=hsn {BOUND}").replace(NET + "\n", "")),
    ("LM605", two("export RANK=${SLURM_PROCID:-0}", TORCHRUN, tasks=1, cpus=56)),
]  # fmt: skip


def ids(text):
    return [found.rule.id for found in check(read(text, "job.sh"), LUMI)]


@pytest.mark.parametrize(("rule", "text"), FOUND)
def test_a_mistake_is_found_in_each_spelling(rule, text):
    assert rule in ids(text)
    all_fixed(text)


@pytest.mark.parametrize(("rule", "text"), QUIET)
def test_what_only_looks_like_it_is_left_alone(rule, text):
    assert rule not in ids(text)


def test_one_port_is_told_once():
    text = small("export MASTER_PORT=29500", "srun torchrun --master_port $MASTER_PORT t.py")
    assert ids(text).count("LM603") == 1


def test_a_variable_in_front_of_a_command_has_its_place():
    (found,) = [
        f for f in check(read(small("MIOPEN_USER_DB=/tmp/x srun python t.py"), "job.sh"), LUMI) if f.rule.id == "LM702"
    ]
    assert (found.hit.place.line, found.hit.place.column) == (11, 1)


NOT_SAFE = {
    "a default that may be overridden": ("LM603", small("export MASTER_PORT=${MASTER_PORT:-29500}", "srun python t.py")),
    "a number that stands elsewhere": ("LM603", small("PORT=29500", "export MASTER_PORT=$PORT", "srun python t.py --port $PORT")),
    "a port that is named twice": ("LM603", small("export MASTER_PORT=29500", "srun python t.py --port 29500")),
    "an address that may be overridden": ("LM604", two("export MASTER_ADDR=${MASTER_ADDR:-localhost}", PORT, BOUND)),
    "a name that is read below": ("LM702", small("export MIOPEN_USER_DB=/tmp/x", "mkdir -p $MIOPEN_USER_DB", "srun python t.py")),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SAFE)
def test_what_is_not_safe_to_change_is_told_only(name):
    rule, text = NOT_SAFE[name]
    found = [f for f in check(read(text, "job.sh"), LUMI) if f.rule.id == rule]
    assert found
    assert not any(f.hit.edits for f in found)


WRITTEN = "#!/bin/bash\nmkdir -p logs\ncat > inner.sh << 'END'\n{}END\nsbatch inner.sh\n"
# What is said of whole files only.
OF_FILES = ("LM101", "LM102", "LM107", "LM608")


@pytest.mark.parametrize(("rule", "text"), [(r, text) for r, text, fix in CASES if fix and r not in OF_FILES])
def test_a_script_in_a_quoted_here_document_is_fixed_in_its_place(rule, text):
    after = all_fixed(WRITTEN.format(text))
    assert after == WRITTEN.format(all_fixed(text))
    assert rule not in ids(after)


def test_a_here_document_that_the_shell_fills_in_is_left_as_it_is():
    text = WRITTEN.replace("'END'", "END").format(small(time="4-00:00:00"))
    assert "LM210" in ids(text)
    assert all_fixed(text) == text


def test_a_range_of_nodes_is_no_number_of_nodes():
    text = two("srun torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d t.py", nodes="1-4", tasks=1, cpus=56)
    assert not {"LM602", "LM205", "LM609"} & set(ids(text))
    assert "LM602" in ids(text.replace("nodes=1-4", "nodes=4-4"))


def test_devices_that_slurm_chooses_by_the_cores_leave_a_note_on_the_binding():
    text = job("srun --gpu-bind=closest python train.py")
    assert [f.severity for f in check(read(text, "job.sh"), LUMI) if f.rule.id == "LM504"] == ["note"]
    assert all_fixed(text) == text
