#!/bin/bash
#SBATCH --job-name=train
#SBATCH --account=project
#SBATCH --partition=gpuA100x4
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=4
#SBATCH --mem=208G
#SBATCH --time=00:30:00
#SBATCH --output=/scratch/project/runs/train/logs/%x-%j.log
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --signal=USR2@120

cd -- /home/user || exit 1
export NCCL_SOCKET_IFNAME=hsn
export OMP_NUM_THREADS=1
export PYTHONUNBUFFERED=1
export PYTHONPATH=/scratch/project/runs/train/lib/lumi_moai.zip${PYTHONPATH:+:$PYTHONPATH}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((10000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT

export LUMI_MOAI_CACHE="/tmp/lumi-moai-$SLURM_JOB_USER-$SLURM_JOB_ID"
export TRITON_CACHE_DIR="$LUMI_MOAI_CACHE"/triton
export TORCHINDUCTOR_CACHE_DIR="$LUMI_MOAI_CACHE"/inductor
export TORCH_EXTENSIONS_DIR="$LUMI_MOAI_CACHE"/extensions
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 \
    bash -c 'umask 077; mkdir -p -- "$LUMI_MOAI_CACHE"; [ -O "$LUMI_MOAI_CACHE" ] && cd -- "$LUMI_MOAI_CACHE" && mkdir -p -- "$@"' \
    caches triton inductor extensions || exit 1

srun \
    --cpus-per-task=64 \
    --kill-on-bad-exit=1 --wait=60 \
    --output=/scratch/project/runs/train/logs/%x-%j-node%n.log --open-mode=append \
    bash -c 'trap "" USR2; PET_NODE_RANK=$SLURM_NODEID exec "$@"' torchrun \
    /usr/bin/python3 -m torch.distributed.run --nnodes=2 --nproc-per-node=4 \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
    -m -- lumi_moai.runtime --run /scratch/project/runs/train -- \
    train.py --batch-size 32
status=$?
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 \
    rm -rf -- "$LUMI_MOAI_CACHE"
exit "$status"
