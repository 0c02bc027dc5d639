#!/bin/bash
# One run of `faprompt predict` as a Slurm array (docs/bulk.md). Submit it with
#   INPUT=/data/lot OUT=/data/results sbatch deploy/slurm-array.sh
# and submit it again after a failure: finished shards take a second each. The number of shards is
# that of the array; keep it while OUT is the same. MODEL is a bundled name or a model folder.
#SBATCH --job-name=faprompt
#SBATCH --array=1-40
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail
: "${INPUT:?a folder, a list such as @list.txt, or a URL}" "${OUT:?the output folder or its URL}"

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
status=0
srun faprompt predict "$INPUT" --model "${MODEL:-small}" --out "$OUT" \
    --shard "$SLURM_ARRAY_TASK_ID/${SLURM_ARRAY_TASK_COUNT:-40}" || status=$?
# 3: the shard is done, and some pictures could not be read; they are rows with an error
[ "$status" -eq 3 ] || exit "$status"
