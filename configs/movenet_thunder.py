"""The MoveNet Thunder network, trained with BatchNorm on human labels.

The shipped model "best" is a mean of the published weights and of the third of three runs of it, each
from the one before.

The initial weights are the published ones of MoveNet Thunder, which is a pose model. Compare its
scores only with other models that start from a pose model.

BatchNorm, which is folded in the published weights, is put back, so that the learning rate can be
several times that of `movenet`.

Paper: as `movenet`.
Reaches: strict PCP 78.0% on the 816 labelled persons of devval (a part of COCO), 85.4% on the LSP
test half, after 351 of its 800 steps; the third run 80.1% and 86.7%, the mean 80.4% and
87.3% (docs/model_card.md). Ground-truth boxes, no flip test.
Time: 4 minutes for 311 steps on an H200 beside two other trainings, without XLA. On constant data and
in batches of 128 it trained 888 images/s there. Two CPU cores train about 5 images/s while other work
runs.

The weights (Apache-2.0) come as for `movenet`; the file is models/movenet-thunder.json. On a GPU
add --config.precision=mixed_bfloat16 --config.augment.on=device. On a CPU, smaller batches need a
lower learning rate.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --aspect=1 --context=1.5 --padding=1.25 --crop_size=320
python -m kpose.train --config=configs/movenet_thunder.py --workdir=runs/movenet_thunder \\
    --config.model.weights=package/models/movenet-thunder.json --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("movenet")
    config.name = "movenet_thunder"
    config.batch_size = 256
    config.steps = 800

    config.augment.rotation = 40.0
    config.augment.scale = (0.75, 1.25)
    config.augment.shift = 0.05
    config.augment.half_body = 0.1
    config.augment.cutout = 0.2
    config.augment.jitter = 0.3
    config.augment.grey = 0.1

    config.model.width = 1.75
    config.model.input_size = (256, 256)
    config.model.batch_norm = True

    config.optimizer.learning_rate = 0.0003
    config.optimizer.ema = 0.998
    config.schedule.warmup_steps = 100
    return config
