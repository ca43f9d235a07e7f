"""The DeepPose network with a modern training: RLE loss, AdamW, all labelled persons.

RLE is residual log-likelihood estimation. Its learned scale is the confidence of each joint.

Paper: Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021. It
reports 12 to 16 AP more on COCO than L1 or L2 regression with the same network, at no cost at
inference.
Reaches: in a short run on a part of COCO (128 x 128, 20 epochs, no augmentation), strict PCP 25.4%
on the 816 labelled persons of devval; the L2 loss gives 17.4%. Ground-truth boxes, no flip test,
`loss.weighting=kpose_0.1`: docs/results.md. The whole recipe on all of COCO has not been measured.
Time: 15 million crops in 100 epochs. `deeppose` processes 11 million in its published 12 hours on
one GPU.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/deeppose_rle.py --workdir=runs/deeppose_rle \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_geometric")
    config.name = "deeppose_rle"

    config.epochs = 100
    config.evaluate_every = 1
    config.stop_after = 0

    config.model.fc_init = "small"

    config.loss.name = "rle"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.0005
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 5.0
    config.optimizer.ema = 0.999
    config.schedule.name = "flat_cosine"
    config.schedule.warmup_steps = 500
    return config
