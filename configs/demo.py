"""The recipe of the demo: a small spatial regressor on synthetic images of people.

Paper: Sun et al., "Integral Human Pose Regression", ECCV 2018, with the L1 loss.
Reaches: strict PCP of about 56% on the 792 validation persons of the synthetic data set
(ground-truth boxes, no flip test): README.md.
Time: 6 minutes of training on two cores of a slow CPU (AVX2 only); less on faster CPUs.

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
