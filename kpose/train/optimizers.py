"""Optimisers and learning-rate schedules by name."""

import math

import keras
from keras import ops

from kpose.core import checks
from kpose.core.errors import InputError
from kpose.models.layers import JOINT_LAYERS


@keras.saving.register_keras_serializable("kpose")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning-rate schedule: a linear warm-up to the peak, then one of four curves.

    constant     the peak
    step         multiplied by `factor` at each milestone
    cosine       half a cosine to zero (Loshchilov and Hutter, "SGDR", ICLR 2017)
    flat_cosine  the peak for the fraction `flat` of the training, then half a cosine to zero

    Args:
        name: "constant", "step", "cosine" or "flat_cosine".
        peak: learning rate after the warm-up.
        total_steps: number of steps of the training.
        warmup_steps: number of steps of the warm-up.
        milestones: for step: fractions of the training.
        factor: for step: factor at each milestone.
        flat: for flat_cosine: fraction of the training before the cosine.
    """

    def __init__(self, name, peak, total_steps, warmup_steps=0, milestones=(), factor=0.1, flat=0.0):
        self.name = name
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.milestones = tuple(milestones)
        self.factor = factor
        self.flat = flat

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warmup = ops.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        return self.peak * warmup * self._share(step)

    def _share(self, step):
        if self.name == "step":
            passed = [ops.cast(step >= milestone * self.total_steps, "float32") for milestone in self.milestones]
            return self.factor ** sum(passed, ops.zeros(()))
        if self.name in ("cosine", "flat_cosine"):
            begin = max(self.warmup_steps, self.flat * self.total_steps if self.name == "flat_cosine" else 0)
            progress = (step - begin) / max(self.total_steps - begin, 1)
            return 0.5 * (1 + ops.cos(math.pi * ops.clip(progress, 0.0, 1.0)))
        return 1.0

    def get_config(self):
        names = ("name", "peak", "total_steps", "warmup_steps", "milestones", "factor", "flat")
        return {name: getattr(self, name) for name in names}


SCHEDULES = ("constant", "step", "cosine", "flat_cosine")
OPTIMIZERS = ("sgd", "adamw")


@checks.register
def check_recipe(config):
    """Raises `InputError` for a bad `optimizer` or `schedule` section of a recipe."""
    checks.choice(config.optimizer.name, "optimizer.name", OPTIMIZERS)
    checks.choice(config.schedule.name, "schedule.name", SCHEDULES)
    _check_milestones(config.schedule)


def _check_milestones(config):
    milestones = tuple(config.milestones)
    if not all(isinstance(m, float) and 0 < m < 1 for m in milestones) or list(milestones) != sorted(set(milestones)):
        raise InputError(
            f"config.schedule.milestones is {milestones}: give fractions of the training between 0 and 1, in "
            "ascending order"
        )
    if config.name == "step" and not milestones:
        raise InputError("config.schedule.name is 'step', but config.schedule.milestones is empty: give some")


def build(optimizer, schedule, total_steps):
    """The Keras optimiser of a recipe.

    Args:
        optimizer: the recipe's `optimizer` section.
        schedule: the recipe's `schedule` section.
        total_steps: number of steps of the training.
    """
    rate = build_schedule(schedule, optimizer.learning_rate, total_steps)
    if optimizer.name == "sgd":
        family, options = keras.optimizers.SGD, {"momentum": optimizer.momentum}
        options["weight_decay"] = optimizer.weight_decay or None
    else:
        family, options = keras.optimizers.AdamW, {"weight_decay": optimizer.weight_decay}
    if optimizer.joints_factor == 1.0:
        return family(rate, **options)
    built = type(family.__name__, (JointRate, family), {})(rate, **options)
    built.joints_factor = optimizer.joints_factor
    return built


class JointRate:
    """An optimiser, with a class of Keras, that multiplies the learning rate of the last layers.

    These are `kpose.models.layers.JOINT_LAYERS`. In a fine-tuning, joints that begin anew need a
    higher rate than the layers before, whose weights are already good.
    """

    joints_factor = 1.0

    def update_step(self, gradient, variable, learning_rate):
        """As in Keras, with the factor for variables of the last layers."""
        path = self._trainable_variables[self._get_variable_index(variable)].path
        if path.split("/")[0] in JOINT_LAYERS:
            learning_rate = learning_rate * self.joints_factor
        super().update_step(gradient, variable, learning_rate)


def build_schedule(schedule, learning_rate, total_steps):
    """The learning rate of a recipe: a float, or a `Schedule`.

    Args:
        schedule: the recipe's `schedule` section.
        learning_rate: the peak.
        total_steps: number of steps of the training.
    """
    if schedule.name == "constant" and not schedule.warmup_steps:
        return learning_rate
    return Schedule(
        schedule.name,
        learning_rate,
        total_steps,
        schedule.warmup_steps,
        schedule.milestones,
        schedule.factor,
        schedule.flat,
    )
