"""`deeppose_rle` on one GPU with 16 GB of memory or more.

Larger batches, and augmentation on the GPU. `precision`, `xla` and `steps_per_execution` choose by
themselves: bfloat16 from compute capability 8 on, compiled with XLA, 16 steps per call from Python.

Paper: as `deeppose_rle`.
Reaches: not measured. This recipe has not been run on a GPU yet.
Time: not measured.

The records are those of `deeppose_rle`; write val2017 in the same way with --split=val.

python -m kpose.train --config=configs/hardware/one_gpu.py --workdir=runs/one_gpu \\
    --config.data.train='records/train-*' --config.data.val='records/val-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_rle")
    config.name = "one_gpu"
    config.batch_size = 256
    # For Adam, the learning rate scales with the square root of the batch size: four times the batch.
    config.optimizer.learning_rate *= 2
    config.augment.on = "device"
    return config
