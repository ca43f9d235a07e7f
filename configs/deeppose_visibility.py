"""DeepPose with 51 outputs (x, y, v for each joint), trained on persons with missing joints.

`kpose.evaluate` reports PCP over the labelled limbs, and AUC, F1 and accuracy of the visibility.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.2, equations 4
and 5.
Reaches: not published ("promising"). On synthetic images (150 steps, 96 x 96, 472 persons), strict
PCP 11.8%; the mean pose has 13.5%. Ground-truth boxes, no flip test: docs/results.md.
Clipping, initial weights: as `deeppose`. It ends after 10 epochs without a lower validation loss.
Time: as `deeppose`. An epoch has 37 times as many persons, so 73 epochs have as many steps as the
2,700 epochs of `deeppose`.

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
    config.stop_after = 10

    config.loss.name = "masked_l2"
    return config
