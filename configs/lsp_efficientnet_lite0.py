"""EfficientNet-Lite0 on Leeds Sports Pose (LSP), the benchmark of the DeepPose paper.

The initial weights are ImageNet weights. The labels are those of LSP and LSP Extended alone.

Paper: Toshev and Szegedy, "DeepPose", CVPR 2014: PCP 0.54 after one stage, 0.61 after three. Network
and loss are those of `efficientnet_lite0`, at 128 x 96 pixels.
Reaches: strict PCP 64.5% on the 1,000 persons of the LSP test half, after 1,400 of 3,280 steps.
Ground-truth boxes, no flip test: docs/results.md.
Time: one hour at 57 images/s on two CPU cores for 20 epochs of the LSP training half and LSP
Extended (10,500 persons).

python -m tfrecords_tools.write_coco --annotations=person_keypoints_lsp_train.json --images=lsp/images \\
    --output_dir=records --split=lsp_train --select=labelled --padding=1.1 --context=1.4 --crop_size=160,128
python -m tfrecords_tools.write_coco --annotations=person_keypoints_lspet.json --images=lspet/images \\
    --output_dir=records --split=lspet --select=labelled --padding=1.1 --context=1.4 --crop_size=160,128
python -m kpose.train --config=configs/lsp_efficientnet_lite0.py --workdir=runs/lsp_efficientnet_lite0 \\
    --config.data.train='records/lsp_train-*,records/lspet-*' --config.data.weights='(2.0,9.5)'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("efficientnet_lite0")
    config.name = "lsp_efficientnet_lite0"

    config.epochs = 20
    config.evaluate_every = 2
    config.checkpoint_every = 100

    config.data.padding = 1.1

    config.augment.rotation = 40.0
    config.augment.scale = (0.75, 1.3)
    config.augment.half_body = 0.0
    config.augment.jitter = 0.3
    config.augment.grey = 0.1

    config.model.input_size = (128, 96)
    config.model.freeze_epochs = 0

    config.optimizer.learning_rate = 0.001
    config.optimizer.ema = 0.998
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 100
    return config
