#!/usr/bin/env bash
# Trains a recipe on all nodes of a Slurm job, one worker on each:
#     sbatch --nodes=4 scripts/slurm_train.sh RECIPE [OPTIONS OF edgecls train]
#SBATCH --job-name=edgecls
#SBATCH --ntasks-per-node=1
set -euo pipefail

# Two jobs on one node must not want the same port.
port=${EDGECLS_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
workers=""
for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    workers="$workers, \"$host:$port\""
done
export EDGECLS_WORKERS="[${workers#, }]"

# srun numbers the tasks in the order of the nodes. When one fails it ends the others.
# shellcheck disable=SC2016
exec srun --kill-on-bad-exit=1 bash -c '
    task="{\"type\": \"worker\", \"index\": $SLURM_PROCID}"
    export TF_CONFIG="{\"cluster\": {\"worker\": $EDGECLS_WORKERS}, \"task\": $task}"
    exec edgecls train "$@"' edgecls "$@"
