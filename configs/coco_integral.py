"""A small spatial regressor on the labelled persons of COCO: the recipe to start with on a CPU.

The network is trained from random weights, with the L1 loss over the labelled joints and flips.

Paper: Sun et al., "Integral Human Pose Regression", ECCV 2018.
Reaches: strict PCP 38.5% on the 816 labelled persons of devval (a part of COCO), 50.4% on its 32
fully visible persons, trained on 5,610 persons. Ground-truth boxes, no flip test: docs/results.md.
Time: 20 minutes for 30 epochs of 5,610 persons on two CPU cores (AVX512_BF16). COCO train2017 has
27 times as many labelled persons.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --crop_size=128
python -m kpose.train --config=configs/coco_integral.py --workdir=runs/coco_integral \\
    --config.data.train='records/train-*'
"""

from kpose.config import default


def get_config():
    config = default()
    config.name = "coco_integral"

    config.batch_size = 64
    config.epochs = 30
    config.evaluate_every = 2
    config.checkpoint_every = 200

    config.augment.flip = 0.5

    config.model.name = "integral"
    config.model.input_size = (128, 128)
    config.model.filters = (32, 64, 128, 192)
    config.model.head_filters = 64

    config.loss.name = "l1"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.003
    config.optimizer.weight_decay = 0.01
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 200
    return config
