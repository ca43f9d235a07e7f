"""Optimisers and learning-rate schedules by name."""

import math

import keras
import tensorflow as tf
from keras import ops

from kpose.core import checks
from kpose.core.errors import InputError
from kpose.models.layers import JOINT_LAYERS
from kpose.train import grouped_update


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
        built = SGD(rate, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay or None)
    else:
        built = AdamW(rate, weight_decay=optimizer.weight_decay)
    built.joints_factor = optimizer.joints_factor
    return built


class Grouped:
    """An optimiser of Keras that updates small variables together (`grouped_update`).

    Attributes:
        joints_factor: factor of the learning rate of `kpose.models.layers.JOINT_LAYERS`. In a
            fine-tuning, joints that begin anew need a higher rate than the layers before, whose
            weights are already good.
    """

    joints_factor = 1.0
    # A boolean scalar during `apply_if`.
    _condition = None

    def apply_if(self, condition, grads, trainable_variables):
        """As `apply`, but changes nothing if a condition is false.

        Unlike `tf.cond`, it does not let the host wait for the condition.

        Args:
            condition: boolean scalar.
            grads, trainable_variables: as for `apply`. If the condition is false, gradients need not
                be finite.
        """
        self._condition = condition
        try:
            self.apply(grads, trainable_variables)
        finally:
            self._condition = None
        # `apply` has counted one.
        self.iterations.assign_sub(tf.cast(tf.logical_not(condition), self.iterations.dtype))

    def _scaled(self, values, factor):
        """`values * factor`; zeros if there is a condition and it is false."""
        if self._condition is None:
            return values * factor
        return tf.math.multiply_no_nan(values, factor * tf.cast(self._condition, tf.float32))

    def _apply_weight_decay(self, variables):
        """Does nothing: the decay is a part of the update."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        rate = tf.cast(learning_rate, tf.float32)
        indices = [self._get_variable_index(variable) for variable in trainable_variables]
        decay = [bool(self.weight_decay) and self._use_weight_decay(variable) for variable in trainable_variables]
        factors = [self._rate_factor(index) for index in indices]
        step = self._step_values(rate)

        def rule(first, weights, *values):
            factor = factors[first]
            change, *slots = self._rule(factor, step, *values)
            if decay[first]:
                # Decoupled weight decay (Loshchilov and Hutter, ICLR 2019), at the common rate, of
                # the weights before the step, as in Keras.
                change -= self._scaled(weights, self.weight_decay * rate)
            return change, *slots

        slots = [[kept[index].value for index in indices] for kept in self._slots()]
        grouped_update.update(
            self._distribution_strategy,
            grouped_update.groups_of([v.shape for v in trainable_variables], list(zip(decay, factors, strict=True))),
            rule,
            [[v.value for v in trainable_variables], *slots],
            [list(grads)],
            added=1,
        )

    def _rate_factor(self, index):
        joints = self._trainable_variables[index].path.split("/")[0] in JOINT_LAYERS
        return self.joints_factor if joints else 1.0


class SGD(Grouped, keras.optimizers.SGD):
    """SGD of Keras with momentum, with grouped updates."""

    def _slots(self):
        return [self.momentums] if self.momentum else []

    def _step_values(self, rate):
        return rate

    def _rule(self, factor, rate, *values):
        *momentum, gradient = values
        change = self._scaled(gradient, -rate * factor)
        if not momentum:
            return (change,)
        moved = change + self._scaled(momentum[0], self.momentum)
        if self._condition is None:
            return moved, moved
        return moved, tf.where(self._condition, moved, momentum[0])


class AdamW(Grouped, keras.optimizers.AdamW):
    """AdamW of Keras (Loshchilov and Hutter, ICLR 2019), with grouped updates."""

    def _slots(self):
        return [self._momentums, self._velocities]

    def _step_values(self, rate):
        step = tf.cast(self.iterations.value + 1, tf.float32)
        return rate * tf.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)

    def _rule(self, factor, rate, mean, square, gradient):
        mean += self._scaled(gradient - mean, 1.0 - self.beta_1)
        square += self._scaled(tf.square(gradient) - square, 1.0 - self.beta_2)
        return self._scaled(mean, -rate * factor) / (tf.sqrt(square) + self.epsilon), mean, square


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
