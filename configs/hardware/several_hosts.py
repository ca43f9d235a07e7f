"""deeppose_rle on several hosts, meant for four with eight GPUs each: one process a host, told apart by TF_CONFIG.

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222", ...]}, "task": {"type": "worker", "index": 0}}' \\
    python -m kpose.train --config=configs/hardware/several_hosts.py --workdir=/shared/runs/several_hosts \\
        --config.data.train='/shared/records/labelled/train-*' --config.data.val='/shared/records/labelled/val-*'

The workdir is on a file system that all hosts share; worker 0 alone writes there. Never run on GPUs yet; two processes
on one CPU are part of the tests.
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("hardware/eight_gpus")
    config.name = "several_hosts"
    config.batch_size = 8192
    config.optimizer.learning_rate *= 2
    # A host that goes takes the others with it, back to the last checkpoint.
    config.checkpoint_every = 200
    return config
