"""DeepPose with the geometric augmentations that Gupta and Gritton ask for: flips, rotations, crops and scales.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.1, which did not try them; half bodies
and cutout are later practice. The records hold context round the box: what is turned or moved into view is real.
Reaches: see "Results" in README.md for what it does on a part of COCO.
Time: as `deeppose`.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/deeppose_geometric.py --workdir=runs/deeppose_geometric \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose")
    config.name = "deeppose_geometric"

    config.augment.flip = 0.5
    config.augment.rotation = 30.0
    config.augment.scale = (0.8, 1.25)
    config.augment.shift = 0.05
    config.augment.half_body = 0.1
    config.augment.cutout = 0.2
    return config
