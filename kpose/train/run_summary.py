"""The lines that a training logs before its first step."""

from absl import logging

import kpose
from kpose.core import validation_sets
from kpose.metrics import coco
from kpose.models import flops


def log(run, step):
    """Logs versions, devices, network, FLOPs per step, data and what the metrics mean.

    Args:
        run: the run of `trainer`.
        step: number of steps that are done.
    """
    config, network, training_set = run.config, run.regressor.network, run.training_set
    work = flops.forward(network, config.model.input_size)
    logging.info("kpose %s, recipe %s", kpose.__version__, config.name)
    logging.info("%s", run.runtime.describe())
    logging.info(
        "network %s: input %d x %d, %.1f million parameters, %.3g GFLOP per image, about %.3g per training step",
        network.name,
        *config.model.input_size,
        network.count_params() / 1e6,
        work / 1e9,
        flops.PASSES_OF_TRAINING * work * config.batch_size / 1e9,
    )
    logging.info(
        "%d training records, batch %d (%d per replica), %d steps per epoch, %d steps in all",
        training_set.num_records,
        config.batch_size,
        config.batch_size // run.runtime.strategy.num_replicas_in_sync,
        run.steps_per_epoch,
        run.total_steps,
    )
    if len(training_set.files) > 1:
        for part, count, weight in zip(training_set.files, training_set.counts, training_set.weights, strict=True):
            logging.info("  %s: %d records, %.1f%% of the samples", part.pattern, count, 100 * weight)
    if config.augment.half_body and not run.skeleton.upper:
        logging.warning(
            "config.augment.half_body has no effect: the skeleton %r has no upper body ('upper' in its file)",
            run.skeleton.name,
        )
    _log_measures(run)
    if config.stop_after and not run.validation:
        logging.warning("config.stop_after has no effect without config.data.val: the training runs all its steps")
    if step:
        logging.info("continuing at step %d of %d", step, run.total_steps)


def _log_measures(run):
    """Logs what the metrics of a skeleton without limbs, torso or sigmas mean."""
    skeleton, measures = run.skeleton, []
    if not skeleton.limbs:
        measures.append("no limbs, so no PCP")
    if not skeleton.torso:
        side = f"region of the network's input / {run.config.data.padding:g}"
        measures.append(f"no torso, so PDJ is relative to the longer side of the box ({side}), as PCK is")
    if not skeleton.sigmas:
        measures.append(f"no sigmas, so OKS has those of COCO's mean joint, {coco.sigmas_of(skeleton)}")
    if measures:
        logging.info("skeleton %r has %s", skeleton.name, "; ".join(measures))
    if run.validation and not skeleton.limbs:
        logging.info("the best checkpoint is that with the highest OKS AP")
    sets = validation_sets.parse(run.config.data.val)
    if len(sets) > 1:
        (first, _), *others = sets
        columns = ", ".join(f"{name!r} in val_{name}_loss ..." for name, _ in others)
        logging.info(
            "validation sets: %r decides the best checkpoint and config.stop_after, its metrics are in val_loss ...; "
            "%s",
            first,
            columns,
        )
