"""The DeepPose network on its own benchmark, Leeds Sports Pose (LSP), from random weights: stage 1.

Paper: Toshev and Szegedy, "DeepPose", CVPR 2014: the layers of AlexNet (here with BatchNorm), L2
over the labelled joints, flips and translations. The paper uses Adagrad; this recipe uses AdamW.
Reaches: strict PCP 31.8% on the LSP test half after 98 epochs in batches of 512, when its loss still
fell (docs/results.md); 0.54 after this stage and 0.61 after three were published. Ground-truth
boxes, no flip test.
Time: 80 seconds for these epochs on an H100, with --config.batch_size=512
--config.augment.on=device --config.data.cache=True. 2.5 hours on two CPU cores for 40 epochs of
10,500 persons at 224 x 224.

The records are those of `lsp_efficientnet_lite0`. To train a second stage, write records with
--crop_size=224 and the same padding and context, and use configs/deeppose_stage2.py with
--config.model.base=runs/lsp_deeppose --config.data.padding=1.375 --config.model.input_size='(280,280)'.

python -m kpose.train --config=configs/lsp_deeppose.py --workdir=runs/lsp_deeppose \\
    --config.data.train='records/lsp_train-*,records/lspet-*' --config.data.weights='(2.0,9.5)'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose")
    config.name = "lsp_deeppose"

    config.epochs = 40
    config.evaluate_every = 5
    config.checkpoint_every = 200
    config.stop_after = 0

    config.model.fc_init = "small"

    config.data.padding = 1.1

    config.augment.flip = 0.5
    config.augment.shift = 0.05

    config.loss.name = "masked_l2"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.0005
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 20.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 100
    return config
