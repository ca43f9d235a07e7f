"""deeppose_rle on all GPUs of one host, meant for eight: one process, MirroredStrategy.

    python -m kpose.train --config=configs/hardware/eight_gpus.py --workdir=runs/eight_gpus \\
        --config.data.train='records/labelled/train-*' --config.data.val='records/labelled/val-*'

The batch is the global one: 256 a GPU. Never run on GPUs yet.
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("hardware/one_gpu")
    config.name = "eight_gpus"
    config.batch_size = 2048
    config.optimizer.learning_rate *= 8**0.5
    config.schedule.warmup_steps = 500
    return config
