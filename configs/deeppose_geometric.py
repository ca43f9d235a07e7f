"""DeepPose with geometric augmentation: flips, rotations, crops and scales.

Gupta and Gritton propose these but did not try them. Half-body crops and cutout are later practice.
The records hold context around the box, so rotated and shifted crops show real pixels.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.1.
Reaches: not published. In a short run on a part of COCO (RLE loss, 128 x 128, 10 of 20 epochs) it
lowered strict PCP on the 816 labelled persons of devval from 18.8% to 8.8%: it needs more epochs.
See docs/results.md.
Time: as `deeppose`: about 12 hours on one GPU (published).

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
