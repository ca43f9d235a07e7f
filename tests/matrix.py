"""The matrix of the training engine: a cell is one small training, in one process or several workers.

python -m tests.matrix FILE 'CELL;CELL...'     a worker (TF_CONFIG); the chief writes FILE
"""

import dataclasses
import glob
import os
import sys
import tempfile

import numpy as np

# Set before TensorFlow is imported: XLA writes a file for each training step that it compiles: a
# complete step on one replica, the part of each replica on several.
DUMPS = tempfile.TemporaryDirectory()
STEP = "_(train_step|gradients)_"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={DUMPS.name} --xla_dump_hlo_module_re=.*{STEP}.*"
)

DEVICES = ("one_device", "two_replicas", "two_workers")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# An epoch is longer than the longest execution and not a multiple of it.
STEPS, STEPS_PER_EPOCH = 10, 5
# So low that float16 does not overflow, so that all cells take the same steps.
LOSS_SCALE = 64.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination of devices, precision, compilation and steps per execution."""

    devices: str
    precision: str
    xla: bool
    steps_per_execution: int

    @property
    def batch_norm(self):
        """Whether the network has BatchNorm, which compiled replicas cannot synchronise."""
        return not self.xla or self.devices == "one_device"

    def __str__(self):
        return f"{self.devices}-{self.precision}-{'xla' if self.xla else 'plain'}-{self.steps_per_execution}"

    @classmethod
    def parse(cls, text):
        devices, precision, xla, steps = text.split("-")
        return cls(devices, precision, xla == "xla", int(steps))


CELLS = [Cell(d, p, x, s) for d in DEVICES for p in PRECISIONS for x in (False, True) for s in (1, 4)]


def train(cell, batch_norm=None):
    """Trains the network of a cell, with or without BatchNorm (None: according to the cell).

    Returns:
        dict of arrays: "before" and "after", the weights and BatchNorm statistics; the history by
        name; "compiled", the number of training steps that XLA compiled.
    """
    from kpose.core.devices import Runtime, cluster
    from tests.train import test_regressor as engine

    # As in `devices.start`: a compiled step cannot exchange statistics with other replicas.
    options = {"batch_norm": cell.batch_norm if batch_norm is None else batch_norm, "synchronized": not cell.xla}
    replicas = {"one_device": 1, "two_replicas": 2, "two_workers": 0}[cell.devices]
    worker, workers = cluster()
    data = engine.make_data()
    compiled_before = len(_compiled_programs())
    regressor = engine.make_regressor(
        replicas,
        cell.xla,
        cell.steps_per_execution,
        cell.precision,
        network=lambda: engine.make_network(**options),
    )
    if cell.precision == "mixed_float16":
        regressor.loss_scale.assign(LOSS_SCALE)
    before = engine.weights(regressor)

    def batches(worker, workers):
        size = engine.BATCH // workers
        return engine.batches(data).map(lambda b: {k: v[worker * size : (worker + 1) * size] for k, v in b.items()})

    distribute = Runtime(regressor.distribute_strategy, cell.precision, cell.xla, True, worker, workers)
    history = regressor.fit(
        distribute.distribute(lambda *part: batches(*part).repeat()),
        steps_per_epoch=STEPS_PER_EPOCH,
        total_steps=STEPS,
        validation_data=distribute.distribute(batches),
        verbose=0,
    ).history
    compiled = len(_compiled_programs()) - compiled_before
    return {"before": before, "after": engine.weights(regressor), "compiled": compiled} | history


def _compiled_programs():
    return glob.glob(os.path.join(DUMPS.name, "*after_optimizations.txt"))


def main(path, cells):
    """Trains the cells (names, separated by semicolons); the chief saves a .npz file."""
    results = {}
    for text in cells.split(";"):
        cell = Cell.parse(text)
        for name, value in train(cell).items():
            results[f"{text}/{name}"] = value
    from kpose.core.devices import cluster

    if cluster()[0] == 0:
        np.savez(path, **results)


if __name__ == "__main__":
    from kpose.core import startup

    startup.import_tensorflow()
    main(*sys.argv[1:])
