#!/bin/bash
# Eight machines with eight GPUs each, one process per GPU: `sbatch docs/slurm.sh --task vqa2 --model vilt --data-root ...`.
# The output path and the cache must lie on a disk that all machines share; the same command goes on where it stopped.
#SBATCH --job-name=vlbench
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
processes=$((SLURM_NNODES * 8))

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 0 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
    -m vlbench run --num-processes "$processes" "$@"
