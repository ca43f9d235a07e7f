"""deeppose_rle on one GPU of 16 GB or more: larger batches, augmentation on the device, Python seldom asked.

    python -m kpose.train --config=configs/hardware/one_gpu.py --workdir=runs/one_gpu \\
        --config.data.train='records/labelled/train-*' --config.data.val='records/labelled/val-*'

`precision` and `xla` stay "auto": bfloat16 from compute capability 8 on, compiled with XLA. Never run on a GPU yet.
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_rle")
    config.name = "one_gpu"
    config.batch_size = 256
    # For Adam the rate grows with the square root of the batch.
    config.optimizer.learning_rate *= 2
    config.steps_per_execution = 20
    config.augment.on = "device"
    return config
