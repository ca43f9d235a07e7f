"""ResNet-18 trained from scratch under a regression head, as Gupta and Gritton propose.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.3: "it is likely a ResNet backbone
trained from scratch would perform better" than DeepPose's, given the time; "Deep Residual Learning" (He et al., 2016).
Loss and schedule are those of `deeppose_rle`. Training warns while the model predicts the mean pose for everyone.
Reaches: not published; see the comparison of recipes in README.md.
Time: 3.6 GFLOP an image at 224 x 224; see the comparison of recipes for a rate.

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
