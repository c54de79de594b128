#!/bin/bash
# Adapter tuning on several machines: one process on each node.
#
#   sbatch examples/slurm.sh          from the project's directory
#
# What has to be yours: the numbers below, the environment, the paths (all nodes
# must share DATA, where output_dir is) and the flags. A process that is lost
# stops the others within a minute; the job is then put into the queue again and
# goes on from the last checkpoint.
#
# Every process opens its port to all of the network, without a password: whoever
# reaches it, other users of the nodes too, reads and writes files as you. Ask
# whether your cluster keeps jobs apart; docs/distributed.md says more.
#SBATCH --job-name=adapter-bert
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
DATA=${DATA:-/shared}
PORT=$((12000 + SLURM_JOB_ID % 20000))   # another job may be on the node

# "host1:12345", "host2:12345", ...
export WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" |
                 sed "s/.*/\"&:$PORT\"/" | paste -sd,)

# Each process has its own SLURM_PROCID, the number of its node in that list.
srun --kill-on-bad-exit=0 bash -c '
  export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]}, \
    \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec python run_classifier.py --distribution=multi_worker "$@"' worker \
  --task_name=MNLI --do_train --do_eval --data_dir="$DATA/glue/MNLI" \
  --vocab_file="$DATA/bert/vocab.txt" \
  --bert_config_file="$DATA/bert/bert_config.json" \
  --init_checkpoint="$DATA/bert/bert_model.ckpt" \
  --train_batch_size=128 --learning_rate=3e-4 --output_dir="$DATA/mnli"
status=$?

# Bad flags or data fail again and again: up to ten times.
if [ $status -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
