"""DeepPose with the six photometric augmentations that Gupta and Gritton tried.

Grey-scale shift, colour jitter, solarise, posterise, sharpness and equalise. The paper does not
give their strengths; the values here are mild.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.1.
Reaches: "very little" more than `deeppose`, which has 31% average PCP on the 159 fully visible
persons of COCO val2017 (published).
Time: as `deeppose`. The augmentations run on the CPU, in parallel with the training step.

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
