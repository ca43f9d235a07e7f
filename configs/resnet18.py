"""ResNet-18 with a regression head, trained from random weights, as Gupta and Gritton propose.

Loss and schedule are those of `deeppose_rle`. Training logs a warning while the model predicts the
mean pose for every person.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.3: "it is likely a
ResNet backbone trained from scratch would perform better" than DeepPose, given the time; He et al.,
"Deep Residual Learning for Image Recognition", CVPR 2016.
Reaches: not published. On synthetic images (150 steps, 96 x 96, 472 persons), strict PCP 19.5%; the
mean pose has 13.5%. Ground-truth boxes, no flip test: docs/results.md.
Time: 3.6 GFLOP an image at 224 x 224. For images/s, see the comparison of recipes in
docs/results.md.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/resnet18.py --workdir=runs/resnet18 \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_rle")
    config.name = "resnet18"

    config.model.name = "backbone"
    config.model.backbone = "resnet18"
    config.model.head = "pooled"
    return config
