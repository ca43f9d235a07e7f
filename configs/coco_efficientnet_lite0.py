"""EfficientNet-Lite0 from ImageNet weights, trained on COCO, LSP and MPII labels on a CPU.

No weights of a pose model are used. Joints that a data set does not label are left out of the loss.

Paper: those of `efficientnet_lite0`.
Reaches: strict PCP 62.5% on the 816 labelled persons of devval (a part of COCO), 71.1% on its 32
fully visible persons, 68.7% on the LSP test half. With more pixels and steps, partly on a GPU, 72.2%
on devval and 80.0% on LSP (docs/results.md, "Run B with more pixels and steps"). Ground-truth boxes,
no flip test, `loss.weighting=kpose_0.1`.
Time: 45 minutes for 3,600 steps at 89 images/s on two CPU cores (AVX512_BF16); 70 minutes were
measured while other work ran.

First write records of each data set, then train:

python -m tfrecords_tools.write_coco --annotations=... --images=... --output_dir=records \\
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
