"""DeepPose with 51 outputs (x, y, v), trained on persons with missing joints.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.2, equations 4 and 5. `kpose.evaluate`
reports PCP over the labelled limbs, and AUC, F1 and accuracy of the visibility.
Reaches: not published ("promising").
Time: as `deeppose`: an epoch has 37 times as many persons, so 73 epochs are as many steps.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled
python -m kpose.train --config=configs/deeppose_visibility.py --workdir=runs/deeppose_visibility \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose")
    config.name = "deeppose_visibility"

    config.epochs = 73
    config.evaluate_every = 1

    config.loss.name = "masked_l2"
    return config
