"""DeepPose with the six photometric augmentations that Gupta and Gritton tried.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.1: grey-scale shift, colour jitter,
solarise, posterise, sharpness, equalise. They give no amounts; these are mild ones.
Reaches: "very little" more than `deeppose`, which has 31% average PCP (published).
Time: as `deeppose`; the augmentations run beside the training, on the CPU.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible
python -m kpose.train --config=configs/deeppose_augmented.py --workdir=runs/deeppose_augmented \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose")
    config.name = "deeppose_augmented"

    config.augment.grey = 0.2
    config.augment.jitter = 0.3
    config.augment.solarise = 0.1
    config.augment.posterise = 0.1
    config.augment.sharpness = 0.2
    config.augment.equalise = 0.1
    return config
