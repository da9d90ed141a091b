#!/bin/bash
cd -- /home/user || exit 1
export OMP_NUM_THREADS=1
export PYTHONUNBUFFERED=1
export PYTHONPATH=/scratch/project/runs/train/lib/lumi_moai.zip${PYTHONPATH:+:$PYTHONPATH}
trap "" USR2
exec /usr/bin/python3 -m torch.distributed.run --standalone --nproc-per-node=4 \
    -m -- lumi_moai.runtime --run /scratch/project/runs/train -- \
    train.py --batch-size 32
