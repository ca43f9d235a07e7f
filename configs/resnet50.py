"""ResNet-50 from ImageNet's weights: the network that regression papers report.

Paper: "Human Pose Regression with Residual Log-likelihood Estimation" (Li et al., ICCV 2021): 70.5 AP on COCO val2017
with detected boxes, 256 x 192, 270 epochs; "Deep Residual Learning" (He et al., CVPR 2016).
Reaches: that is what it is to reach; not measured here.
Time: 8 GFLOP an image at 224 x 224; see the comparison of recipes in README.md for a rate.

The weights are a preset of keras_cv, which is fetched from the network (pip install kagglehub). A file of Keras' or
PyTorch's can be named in its place: --config.model.weights=resnet50.pth

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
