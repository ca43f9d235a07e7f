"""`deeppose_rle` on several hosts, sized for four hosts with eight GPUs each.

One process runs on each host, with the same command. TF_CONFIG gives each process its index. All
hosts share the file system of the workdir; only worker 0 writes there.

Paper: as `deeppose_rle`.
Reaches: not measured. This recipe has not been run on GPUs yet. The tests run two workers on one
CPU.
Time: not measured.

The records are those of `deeppose_rle`; write val2017 in the same way with --split=val.

TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222", ...]}, "task": {"type": "worker", "index": 0}}' \\
python -m kpose.train --config=configs/hardware/several_hosts.py --workdir=/shared/runs/several_hosts \\
    --config.data.train='/shared/records/train-*' --config.data.val='/shared/records/val-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("hardware/eight_gpus")
    config.name = "several_hosts"
    config.batch_size = 8192
    config.optimizer.learning_rate *= 2
    # If one host fails, all hosts restart from the last checkpoint.
    config.checkpoint_every = 200
    return config
