"""`deeppose_rle` on all GPUs of one host, sized for eight: one process, MirroredStrategy.

The batch size is the global one: 256 on each of eight GPUs.

Paper: as `deeppose_rle`.
Reaches: not measured. This recipe has not been run on GPUs yet.
Time: not measured.

The records are those of `deeppose_rle`; write val2017 in the same way with --split=val.

python -m kpose.train --config=configs/hardware/eight_gpus.py --workdir=runs/eight_gpus \\
    --config.data.train='records/train-*' --config.data.val='records/val-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("hardware/one_gpu")
    config.name = "eight_gpus"
    config.batch_size = 2048
    config.optimizer.learning_rate *= 8**0.5
    config.schedule.warmup_steps = 500
    return config
