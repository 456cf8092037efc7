#!/bin/bash
# Trains under SLURM on the GPUs of one node or several. What follows the name of this file goes to jax_video.main:
#
#   sbatch launch/slurm.sh --config=configs/stc.py:model=stc_resnet101,data=data/ucf101 --workdir=runs/ucf101
#
# Submit it from the folder of this repository, which all nodes share, and from the environment that has JAX for CUDA.
# Change nodes, GPUs, cores and time below, or on the command line: sbatch --nodes=1 launch/slurm.sh ...
#
# SIGTERM makes the run save and end with exit code 130. SLURM sends it two minutes before the time is up (--signal),
# when a job is preempted or requeued, and by scancel. The job goes back into the queue and later goes on from there;
# only after a plain `scancel JOB` it does not, but the same sbatch command goes on. When a node fails, the job is
# requeued and goes on from its last checkpoint. The cluster's KillWait, 30 seconds by default, must be long enough to save.

#SBATCH --job-name=jax_video
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8  # one task for each GPU,
#SBATCH --gpus-per-node=8    # which sees all of its node and takes its own: not with --gpus-per-task
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

code=0
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" python -u -m jax_video.main --distributed=auto "$@" || code=$?
if [ "$code" = 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
