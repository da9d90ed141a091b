#!/bin/bash
#SBATCH --job-name=train
#SBATCH --account=project_465000001
#SBATCH --partition=standard-g
#SBATCH --nodes=12
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --gpus-per-node=8
#SBATCH --mem=480G
#SBATCH --time=01:00:00
#SBATCH --output=/scratch/project/runs/train/logs/%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR2@120

cd -- /home/user || exit 1
module purge
module use /appl/local/laifs/modules
module load lumi-aif-singularity-bindings
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export NCCL_NET='AWS Libfabric'
export FI_MR_CACHE_MONITOR=userfaultfd
export FI_CXI_DEFAULT_CQ_SIZE=131072
export OMP_NUM_THREADS=1
export TOKENIZERS_PARALLELISM=false
export PYTHONUNBUFFERED=1
export PYTHONPATH=/scratch/project/runs/train/lib/lumi_moai.zip${PYTHONPATH:+:$PYTHONPATH}
export LUMI_MOAI_REQUEUE=1
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((10000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT

export LUMI_MOAI_CACHE="/tmp/lumi-moai-$SLURM_JOB_USER-$SLURM_JOB_ID"
export MIOPEN_USER_DB_PATH="$LUMI_MOAI_CACHE"/miopen
export MIOPEN_CUSTOM_CACHE_DIR="$LUMI_MOAI_CACHE"/miopen
export TRITON_CACHE_DIR="$LUMI_MOAI_CACHE"/triton
export TORCHINDUCTOR_CACHE_DIR="$LUMI_MOAI_CACHE"/inductor
export TORCH_EXTENSIONS_DIR="$LUMI_MOAI_CACHE"/extensions
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 \
    bash -c 'umask 077; mkdir -p -- "$LUMI_MOAI_CACHE"; [ -O "$LUMI_MOAI_CACHE" ] && cd -- "$LUMI_MOAI_CACHE" && mkdir -p -- "$@"' \
    caches miopen triton inductor extensions || exit 1

srun \
    --cpus-per-task=7 \
    --cpu-bind=mask_cpu:0xfe000000000000,0xfe00000000000000,0xfe0000,0xfe000000,0xfe,0xfe00,0xfe00000000,0xfe0000000000 \
    --kill-on-bad-exit=1 --wait=60 \
    --output=/scratch/project/runs/train/logs/%x-%j-rank%t.log --open-mode=append \
    singularity run /appl/local/laifs/containers/lumi-multitorch-latest.sif \
    python -m lumi_moai.runtime --run /scratch/project/runs/train -- \
    train.py --batch-size 32
status=$?
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 \
    rm -rf -- "$LUMI_MOAI_CACHE"
[ "$(cat -- /scratch/project/runs/train/checkpoints/requeue-"$SLURM_JOB_ID" 2>/dev/null)" = "${SLURM_RESTART_COUNT:-0}" ] &&
    scontrol requeue "$SLURM_JOB_ID"
exit "$status"
