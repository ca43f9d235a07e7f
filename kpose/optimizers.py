"""Optimisers and learning-rate schedules by name."""

import math

import keras

from kpose.errors import InputError


@keras.saving.register_keras_serializable("kpose")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter, "SGDR", ICLR 2017).

    Args:
        peak: the learning rate after the warm-up.
        total_steps: steps of the whole training.
        warmup_steps: of which warm-up.
    """

    def __init__(self, peak, total_steps, warmup_steps=0):
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        warmup = (step + 1) / max(self.warmup_steps, 1)
        progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        cosine = 0.5 * (1 + keras.ops.cos(math.pi * keras.ops.clip(progress, 0.0, 1.0)))
        return self.peak * keras.ops.where(step < self.warmup_steps, warmup, cosine)

    def get_config(self):
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps}


SCHEDULES = ("constant", "cosine")
OPTIMIZERS = ("sgd", "adamw")


def build(optimizer, schedule, total_steps):
    """The optimiser of a recipe.

    Args:
        optimizer, schedule: the recipe's sections of those names.
        total_steps: steps of the whole training.

    Raises:
        InputError: an unknown name.
    """
    rate = build_schedule(schedule, optimizer.learning_rate, total_steps)
    if optimizer.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay or None)
    if optimizer.name == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=optimizer.weight_decay)
    raise InputError(f"optimizer.name is {optimizer.name!r}: there are {', '.join(OPTIMIZERS)}")


def build_schedule(schedule, learning_rate, total_steps):
    """A learning rate, or a schedule of it."""
    if schedule.name == "constant":
        return learning_rate
    if schedule.name == "cosine":
        return WarmupCosine(learning_rate, total_steps, schedule.warmup_steps)
    raise InputError(f"schedule.name is {schedule.name!r}: there are {', '.join(SCHEDULES)}")
