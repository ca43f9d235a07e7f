"""DeepPose's network, trained as regression is trained today: residual log-likelihood, AdamW, all labelled persons.

Paper: "Human Pose Regression with Residual Log-likelihood Estimation" (Li et al., ICCV 2021): 12 to 16 AP more on COCO
than L1 or L2 regression with the same network, at no cost at inference. The learned scale is the joints' confidence.
Reaches: see "Results" in README.md for what it does on a part of COCO.
Time: 15 million crops in 100 epochs; `deeppose` takes 11 million in the 12 hours of one GPU that are published.

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

    config.loss.name = "rle"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.0005
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 5.0
    config.optimizer.ema = 0.999
    config.schedule.name = "flat_cosine"
    config.schedule.warmup_steps = 500
    return config
