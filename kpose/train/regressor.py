"""The training engine: `Model.fit` that compiles with XLA under every strategy.

Keras 3 turns off XLA under a strategy, fails with `steps_per_execution > 1` on two replicas
(keras#19246) and checks float16 gradients for overflow on one replica only. All of this is in the
train function. `Regressor` replaces this function; `fit`, its callbacks and its history are those
of Keras:

    outer tf.function    for each step of the execution:
      strategy.run         on each replica: forward, loss, gradient (one XLA program if XLA is on)
      reduce               gradients and BatchNorm statistics, over all replicas
      update               once for all replicas: loss scale, clipping, optimizer

If XLA is on and there is one replica, all three are one XLA program. The part that runs on a replica
is a pure function of tensors, so on several XLA compiles it without variables. The norm of the
gradient, and whether it is finite, are computed after the reduction.

The module has a little more than 400 lines, because the parts of one step are read together.
"""

import functools

import keras
import tensorflow as tf

from kpose.core import devices
from kpose.models import xla_operations
from kpose.models.decoding import region_inputs, to_pixels
from kpose.train import executions, grouped_update, optimizers, replicas, validation_ap
from kpose.train.epoch_metrics import EpochMetrics

# Dynamic loss scaling for float16 (Micikevicius et al., "Mixed Precision Training", ICLR 2018).
INITIAL_LOSS_SCALE = 2.0**15
LOSS_SCALE_GROWTH_STEPS = 2000


class Regressor(keras.Model):
    """A network with its loss and metrics, for `compile(optimizer)` and `fit`.

    Build and compile it inside `strategy.scope()`. Batches are the dicts of `kpose.data.pipeline`.

    Args:
        network: a functional `keras.Model`: images [B, H, W, 3] of 0..255 -> dict with "keypoints"
            [B, K, 2], normalised.
        loss: a `losses.KeypointLoss`. Its variables are trained too. With reduction "sum" the
            optimiser minimises the sum over the global batch, otherwise the mean.
        pixel_metrics: `keras.metrics.Metric`s of (truth [B, K, 3], prediction [B, K, 2], weight
            [B]), in original pixels.
        crop_metrics: the same in normalised coordinates.
        augmentation: function (batch) -> batch that runs in the training step; None: no
            augmentation.
        teacher: function (batch after augmentation) -> batch with `taught` [B, K, 3], the keypoints
            of a teacher; None: no teacher.
        taught_share: factor of the loss of `taught`, which is added to the loss of the labels.
        padding: factor by which the box was enlarged to the region of a batch. The longer side of
            the box that `keras_metrics.PDJ` gets is that of the region, divided by this factor: for
            boxes that were first extended to an aspect, that of the extended box.
        xla: compile the replica's part of each step with XLA.
        clip_norm: largest global norm of the reduced gradient; 0: no limit.
        ema: decay of the moving average of the weights, which evaluation uses; 0: no average.
    """

    def __init__(
        self,
        network,
        loss,
        pixel_metrics=(),
        crop_metrics=(),
        augmentation=None,
        teacher=None,
        taught_share=1.0,
        padding=1.0,
        xla=False,
        clip_norm=0.0,
        ema=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.network = network
        self.sample_loss = loss
        self.pixel_metrics = list(pixel_metrics)
        self.crop_metrics = list(crop_metrics)
        self.augmentation = augmentation
        self.teacher = teacher
        self.taught_share = taught_share
        self.padding = padding
        self.xla = xla
        self.clip_norm = clip_norm
        self.ema = ema
        # Moving averages of all trainable variables, also of those that `freeze` freezes later.
        self.averaged = network.trainable_variables if ema else []
        self.averages = [tf.Variable(v.value, trainable=False) for v in self.averaged]
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.gradient_norm_tracker = keras.metrics.Mean(name="gradient_norm")
        self.scales_loss = network.compute_dtype == "float16"
        # Steps whose loss or gradient is not finite are skipped: the last such step (-1: none), and
        # their number.
        self.nonfinite_step = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self.skipped_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Saved for every precision, so that all checkpoints hold the same variables.
        self.loss_scale = tf.Variable(INITIAL_LOSS_SCALE if self.scales_loss else 1.0, trainable=False)
        self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        # The learning rate of the last step. The optimiser's is that of the next step.
        self.step_learning_rate = tf.Variable(0.0, trainable=False)
        # A `validation_ap.ValidationAP`, which `evaluate` fills; None: no OKS AP.
        self.validation_ap = None
        # Further validation sets of `evaluate`: {name: (batches, `ValidationAP` or None)}. All share
        # the variable of `validation_ap`.
        self.further_validation = {}
        self.epoch_metrics = EpochMetrics(self)
        # Total seconds that training steps have waited for batches.
        self.data_wait = 0.0
        self._metric_results = tf.function(super().get_metrics_result, autograph=False)
        # Otherwise `fit` would build the model by tracing the step with symbolic tensors.
        self.built = True

    def call(self, images, training=False):
        return self.network(images, training=training)

    def compile(self, optimizer, steps_per_execution=1):
        """Compiles like `keras.Model.compile`; loss, metrics and XLA are set in the constructor."""
        # For float16 Keras would wrap the optimiser, which decides on each replica separately.
        super().compile(
            optimizer=optimizer, steps_per_execution=steps_per_execution, jit_compile=False, auto_scale_loss=False
        )
        trained = self.trained_variables
        # No decay of biases and normalisation layers (He et al., "Bag of Tricks for Image
        # Classification with Convolutional Neural Networks", CVPR 2019).
        optimizer.exclude_from_weight_decay(var_list=[v for v in trained if len(v.shape) < 2])
        optimizer.build(trained)

    @property
    def trained_variables(self):
        """Trainable variables of the network and of the loss."""
        return [*self.network.trainable_variables, *self.sample_loss.trainable_variables]

    @property
    def metrics(self):
        return [self.loss_tracker, self.gradient_norm_tracker, *self.crop_metrics, *self.pixel_metrics]

    def fit(self, x, steps_per_epoch, total_steps, start_step=0, callbacks=(), **kwargs):
        """As `keras.Model.fit`, from any step of a training to its end.

        Args:
            x: the training batches, starting at batch `start_step`.
            steps_per_epoch: number of steps; need not be a multiple of `steps_per_execution`.
            total_steps: number of steps of the training; the last epoch may be shorter.
            start_step: number of steps that are done.
            callbacks, **kwargs: as for `keras.Model.fit`. Callbacks read the step from
                `self.model.steps.done`.
        """
        self.steps = executions.TrainingSteps(start_step, steps_per_epoch, total_steps, self.steps_per_execution)
        return super().fit(
            x,
            steps_per_epoch=steps_per_epoch,
            initial_epoch=start_step // steps_per_epoch,
            epochs=-(-total_steps // steps_per_epoch),
            # Comes first, because the other callbacks need its count of the new epoch.
            callbacks=[self.steps, *callbacks],
            shuffle=False,
            **kwargs,
        )

    def freeze(self, layer, frozen):
        """Freezes or unfreezes a layer of the network, and its BatchNorm statistics.

        The optimiser keeps the variables of all weights, so checkpoints hold the same variables.

        Args:
            layer: a layer of `network`.
            frozen: whether to freeze it.
        """
        if layer.trainable == frozen:
            layer.trainable = not frozen
            # The step was traced with other variables; `fit` uses the new function from now on.
            self.make_train_function(force=True)

    def get_metrics_result(self):
        """As that of `keras.Model`, which has 180 operations, in one call from Python."""
        return self._metric_results()

    def make_train_function(self, force=False):
        """Sets `train_function`, which runs one execution; `fit` calls it."""
        if self.train_function is not None and not force:
            return
        step = self._compiled(self._train_step) if self._is_one_program() else self._train_step
        execute = executions.looped(step)

        def train_function(iterator):
            first = self.steps.done
            steps = self.steps.next_execution()
            # 0 if a resumed run has finished its first epoch, of which `fit` counts all steps.
            if steps:
                # The profiler needs the number of the step.
                with tf.profiler.experimental.Trace("train", step_num=first, _r=1):
                    waited = execute(iterator, steps, first)
                with executions.on_host():
                    self.data_wait += waited
            return self.get_metrics_result()

        self.train_function = train_function

    def make_test_function(self, force=False):
        """Sets `test_function`, which runs one execution; `evaluate` calls it."""
        if self.test_function is not None and not force:
            return
        execute = executions.looped(self._test_step)

        def test_function(iterator):
            steps = min(self.steps_per_execution, self._test_steps_left)
            self._test_steps_left -= steps
            execute(iterator, steps, 0)
            results = self.get_metrics_result()
            return {name: value for name, value in results.items() if name != self.gradient_norm_tracker.name}

        self.test_function = test_function

    def evaluate(self, x, **kwargs):
        """Evaluates like `keras.Model.evaluate`, on a dataset of known cardinality.

        With `return_dict`, the results lack PCP and PDJ if nothing counted, and with
        `validation_ap` they hold `oks_ap`. They also hold the metrics of `further_validation`, such as
        "NAME_loss". The metric objects keep the state of `x`.
        """
        self.epoch_metrics.keep()
        further = {}
        if kwargs.get("return_dict"):
            options = {name: value for name, value in kwargs.items() if name != "_use_cached_eval_dataset"}
            for name, (batches, average_precision) in self.further_validation.items():
                found = self._evaluate(batches, average_precision, **options)
                further |= {f"{name}_{metric}": value for metric, value in found.items()}
        found = self._evaluate(x, self.validation_ap, **kwargs)
        return found | further if kwargs.get("return_dict") else found

    def _evaluate(self, x, average_precision, **kwargs):
        """`evaluate` on one set."""
        # Without it, the last execution would run out of data, and its batches would not count.
        # It is a method of a `tf.data.Dataset` and a property of a distributed dataset.
        self._test_steps_left = int(x.cardinality() if callable(x.cardinality) else x.cardinality)
        if self._test_steps_left < 1:
            raise ValueError(f"x must be a tf.data.Dataset of known cardinality. Received: {x}")
        results = super().evaluate(x, **kwargs)
        if not kwargs.get("return_dict"):
            return results
        undefined = {metric.name for metric in self.pixel_metrics if not getattr(metric, "defined", True)}
        results = {name: value for name, value in results.items() if name not in undefined}
        return results | (average_precision.result() if average_precision else {})

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing: that of Keras consumes a batch and does not work with several hosts."""

    def _is_one_program(self):
        """Whether XLA compiles complete steps, and not only the part of a replica.

        Metrics and update have hundreds of small operations, which take the host longer than the card.
        XLA does not sum over replicas, and on a card that is divided in two not even over one.
        """
        return self.xla and self.distribute_strategy.num_replicas_in_sync == 1 and not devices.gpu_is_divided()

    def _train_step(self, batch, step):
        strategy = self.distribute_strategy
        scale = tf.convert_to_tensor(self.loss_scale)
        sample_scale = scale
        if self.sample_loss.reduction != "sum":
            size = replicas.total(strategy, strategy.run(lambda b: tf.reduce_sum(b["weight"]), args=(batch,)))
            sample_scale = sample_scale / size
        gradients, state, loss = strategy.run(self._replica_train_step, args=(batch, sample_scale))
        # If a value is not finite on one replica, the sum is not finite on all replicas.
        loss = replicas.total(strategy, loss)
        gradients = [replicas.total(strategy, g) for g in gradients]
        if self.scales_loss:
            gradients = [g / scale for g in gradients]
        state = {index: replicas.reduce_state(strategy, value) for index, value in state.items()}
        self._update(gradients, state, loss, step)

    def _replica_train_step(self, batch, sample_scale):
        replica_id = tf.distribute.get_replica_context().replica_id_in_sync_group
        trainable = [tf.convert_to_tensor(v.value) for v in self.trained_variables]
        state = [
            replicas.seeded(tf.convert_to_tensor(v.value), replica_id) for v in self.network.non_trainable_variables
        ]
        gradients, state, batch, outputs, losses = self._compiled(self.gradients)(trainable, state, batch, sample_scale)
        self._update_metrics(batch, outputs, losses)
        state = {index: replicas.unseeded(value, replica_id) for index, value in state.items()}
        return gradients, state, tf.reduce_sum(losses * batch["weight"])

    def gradients(self, trainable, state, batch, sample_scale):
        """Gradients and losses of a batch on one replica: a pure function of tensors.

        Args:
            trainable: values of the trainable variables of the network and of the loss.
            state: values of the other variables of the network.
            batch: a batch of `fit`.
            sample_scale: scalar factor of the loss of each sample.

        Returns:
            (gradients of `trainable`, dict index -> changed value of `state`, batch after
            augmentation, outputs of the network, [B] losses).
        """
        if self.augmentation:
            batch = self.augmentation(batch)
        if self.teacher:
            batch = self.teacher(batch)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            images = tf.cast(batch["image"], tf.float32)
            of_network = len(self.network.trainable_variables)
            outputs, after = self.network.stateless_call(
                trainable[:of_network], state, images, training=True, **_inputs(self.network, batch)
            )
            losses = self._loss_values(trainable[of_network:], batch, outputs)
            total = tf.reduce_sum(losses * batch["weight"] * sample_scale)
        gradients = tape.gradient(total, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        # The weights of frozen layers are state that does not change, and need no reduction.
        changed = {str(i): new for i, (old, new) in enumerate(zip(state, after, strict=True)) if new is not old}
        return gradients, changed, batch, outputs, losses

    def _loss_values(self, values, batch, outputs):
        """[B] losses, with `values` for the variables of the loss."""
        with keras.StatelessScope(state_mapping=list(zip(self.sample_loss.trainable_variables, values, strict=True))):
            losses = self.sample_loss.call(batch["keypoints"], outputs)
            if "taught" in batch:
                losses += self.taught_share * self.sample_loss.call(batch["taught"], outputs)
            return losses

    def _update(self, gradients, state, loss, step):
        self.step_learning_rate.assign(tf.cast(self.optimizer.learning_rate, tf.float32))
        finite_loss = tf.math.is_finite(loss)
        finite = self._apply(gradients, state, finite_loss)
        failed = ~finite
        if self.scales_loss:
            # Overflow of gradients is normal: it lowers the scale. The loss itself is not scaled.
            failed = ~finite_loss | (~finite & (self.loss_scale <= 1.0))
        self.skipped_steps.assign_add(tf.cast(failed, tf.int64))
        self.nonfinite_step.assign(tf.where(failed, step, self.nonfinite_step))
        if not self.scales_loss:
            return
        grown = tf.logical_and(finite, self.finite_steps + 1 >= LOSS_SCALE_GROWTH_STEPS)
        factor = tf.where(grown, 2.0, tf.where(finite | ~finite_loss, 1.0, 0.5))
        self.loss_scale.assign(tf.maximum(self.loss_scale * factor, 1.0))
        self.finite_steps.assign(tf.where(tf.logical_and(finite, tf.logical_not(grown)), self.finite_steps + 1, 0))

    def _apply(self, gradients, state, finite_loss):
        """Applies gradients if all values are finite; returns whether they are."""
        norm = tf.linalg.global_norm(gradients)
        # The gradient of a loss that is NaN can be finite, because clipping stops gradients.
        finite = tf.logical_and(finite_loss, tf.math.is_finite(norm))
        if self.clip_norm:
            factor = tf.minimum(1.0, self.clip_norm / tf.maximum(norm, 1e-12))
            gradients = [g * factor for g in gradients]

        # Its share on each replica: outside the replicas, the host would read the sums of all.
        counted = (
            tf.where(finite, norm, 0.0),
            tf.cast(finite, tf.float32) / self.distribute_strategy.num_replicas_in_sync,
        )
        self.distribute_strategy.run(self.gradient_norm_tracker.update_state, args=counted)
        if self._waits():
            tf.cond(finite, lambda: self._change(gradients, state), lambda: None)
        else:
            self._change(gradients, state, finite)
        return finite

    def _waits(self):
        """Whether the host waits for the gradients before the update.

        On a card this would leave the card idle between two steps. On a CPU it costs nothing, and saves
        the update from checking each value.
        """
        return devices.on_cpu(self.distribute_strategy) or not isinstance(self.optimizer, optimizers.Grouped)

    def _change(self, gradients, state, finite=None):
        """Updates all variables; if `finite` is a scalar that is False, to the values that they have."""
        if finite is None:
            self.optimizer.apply(gradients, self.trained_variables)
        else:
            self.optimizer.apply_if(finite, gradients, self.trained_variables)
        self._average(finite)
        for index, value in state.items():
            variable = self.network.non_trainable_variables[int(index)].value
            variable.assign(value if finite is None else tf.where(finite, value, variable))

    def _average(self, finite=None):
        if not self.ema:
            return
        # The decay is smaller at the start, so that the initial weights have little effect.
        step = tf.cast(self.optimizer.iterations.value, tf.float32)
        decay = tf.minimum(self.ema, (1.0 + step) / (10.0 + step))
        if finite is not None:
            decay = tf.where(finite, decay, 1.0)
        grouped_update.update(
            self.distribute_strategy,
            grouped_update.groups_of([v.shape for v in self.averages], [None] * len(self.averages)),
            lambda _, average, value: (decay * average + (1.0 - decay) * value,),
            [self.averages],
            [[v.value for v in self.averaged]],
        )

    def predict_crops(self, images, regions=None):
        """Outputs of the network with evaluation weights.

        Args:
            images: [N, H, W, 3] of 0..255.
            regions: [N, 4] xywh in original pixels of what they show; a cascade needs them if the
                images are stretched.
        """
        options = {} if regions is None else region_inputs(self.network, regions)
        images = tf.cast(images, tf.float32)
        return self.network.stateless_call(*self._inference_values(), images, training=False, **options)[0]

    def _inference_values(self):
        averages = {id(v): average for v, average in zip(self.averaged, self.averages, strict=True)}
        groups = self.network.trainable_variables, self.network.non_trainable_variables
        return [[tf.convert_to_tensor(averages.get(id(v), v.value)) for v in group] for group in groups]

    def _test_step(self, batch, step):
        strategy = self.distribute_strategy
        predictions = strategy.run(self._replica_test_step, args=(batch,))
        if self.validation_ap and "number" in batch:
            # The rows of the other replicas are zeros, so that the sum has the rows of all.
            self.validation_ap.update(replicas.total(strategy, predictions))

    def _replica_test_step(self, batch):
        of_loss = [tf.convert_to_tensor(v.value) for v in self.sample_loss.trainable_variables]
        outputs, losses = self._compiled(self._predictions)(*self._inference_values(), of_loss, batch)
        self._update_metrics(batch, outputs, losses)
        if self.validation_ap and "number" in batch:
            context = tf.distribute.get_replica_context()
            rows = validation_ap.rows(batch, outputs)
            # Among several workers the batches have no static size.
            size = tf.shape(rows)[0]
            before = context.replica_id_in_sync_group * size
            after = (context.num_replicas_in_sync - 1) * size - before
            return tf.pad(rows, [[before, after], [0, 0]])
        return None

    def _predictions(self, trainable, state, of_loss, batch):
        images = tf.cast(batch["image"], tf.float32)
        options = region_inputs(self.network, batch["region"])
        outputs, _ = self.network.stateless_call(trainable, state, images, training=False, **options)
        return outputs, self._loss_values(of_loss, batch, outputs)

    def _update_metrics(self, batch, outputs, losses):
        weight = batch["weight"]
        # The mean excludes losses that are not finite; `WatchFinite` reports them.
        finite = tf.math.is_finite(losses)
        self.loss_tracker.update_state(tf.where(finite, losses, 0.0), weight * tf.cast(finite, weight.dtype))
        for metric in self.crop_metrics:
            metric.update_state(batch["keypoints"], outputs["keypoints"], weight)
        truth, prediction = to_pixels(batch, outputs["keypoints"])
        sides = tf.reduce_max(batch["region"][:, 2:], axis=-1) / self.padding
        for metric in self.pixel_metrics:
            options = {"sides": sides} if getattr(metric, "takes_sides", False) else {}
            metric.update_state(truth, prediction, weight, **options)

    def _compiled(self, function):
        # Without XLA the function is traced in place, where BatchNorm can synchronise the replicas.
        if not self.xla:
            return function

        # The name of the function names the program of XLA.
        @functools.wraps(function)
        def traced(*arguments):
            with xla_operations.tracing(for_cpu=devices.on_cpu(self.distribute_strategy)):
                return function(*arguments)

        return tf.function(traced, jit_compile=True, autograph=False)


def _inputs(network, batch):
    """Keyword arguments of a cascade: the estimate, if the batch has one, and the aspects."""
    estimate = {"estimate": batch["estimate"]} if "estimate" in batch else {}
    return estimate | region_inputs(network, batch["region"])
