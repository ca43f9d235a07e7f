"""The demo's recipe: a small spatial regressor on drawn people, sized for two CPU cores.

Paper: integral pose regression (Sun et al., "Integral Human Pose Regression", ECCV 2018), L1 loss.
Reaches: see README.md.
Time: a few minutes on 2 cores.

make demo
"""

from kpose.config import default


def get_config():
    config = default()
    config.name = "demo"

    config.batch_size = 32
    config.epochs = 4
    config.checkpoint_every = 250

    config.augment.flip = 0.5

    config.model.name = "integral"
    config.model.input_size = (80, 80)
    config.model.filters = (24, 48, 96, 128)
    config.model.head_filters = 48

    config.loss.name = "l1"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.004
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 100
    return config
