"""COCO without a pose teacher on two CPU cores: EfficientNet-Lite0 from ImageNet's weights, on five sets of labels.

Paper: those of `efficientnet_lite0`; joints that a data set does not label are left out of the loss.
Reaches: 71.1% strict PCP on COCO's fully visible persons (32 of devval), 62.5% on all labelled ones, 68.7% on LSP's
test half: see "Results" in README.md.
Time: 89 images/s on two CPU cores, 45 minutes for its 3,600 steps.

for each data set: python -m tfrecords_tools.write_coco --annotations=... --images=... --output_dir=records \\
    --split=NAME --select=labelled --padding=1.1 --context=1.4 --crop_size=160,128
python -m kpose.train --config=configs/coco_efficientnet_lite0.py --workdir=runs/coco_efficientnet_lite0 \\
    --config.data.train='records/coco-*,records/lsp_train-*,records/lspet-*,records/mpii-*' \\
    --config.data.weights='(11.5,1.5,4.0,3.0)'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("lsp_efficientnet_lite0")
    config.name = "coco_efficientnet_lite0"

    config.steps = 3600

    config.augment.rotation = 30.0
    config.augment.scale = (0.8, 1.25)
    config.augment.jitter = 0.2
    config.augment.cutout = 0.0
    return config
