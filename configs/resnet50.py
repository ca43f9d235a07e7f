"""ResNet-50 with ImageNet weights: the usual network of papers on keypoint regression.

Paper: Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021: 70.5 AP
on COCO val2017 with detected boxes, 256 x 192, 270 epochs; He et al., "Deep Residual Learning for
Image Recognition", CVPR 2016.
Reaches: the published 70.5 AP is the target; not measured here.
Time: 8 GFLOP an image at 224 x 224. For images/s of smaller networks, see the comparison of recipes
in docs/results.md.

The weights are a preset of keras_cv, which downloads it (pip install kagglehub). A Keras or PyTorch
weights file can be named instead: --config.model.weights=resnet50.pth

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/resnet50.py --workdir=runs/resnet50 \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("resnet18_pretrained")
    config.name = "resnet50"

    config.epochs = 270
    config.model.backbone = "resnet50"
    config.model.weights = "resnet50_imagenet"
    config.model.freeze_epochs = 1
    return config
