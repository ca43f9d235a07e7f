"""Devices x precision x compilation x steps per execution: the results of all cells agree."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import matrix
from tests.train.test_workers import environments

# Limits of the relative difference between changes of the weights in training. Same precision:
# additions in another order, and gradients that are rounded on each replica. Other precisions:
# rounding in ten steps with a high learning rate. On a CPU without bfloat16 arithmetic the kernels
# round at different points: after ten steps on AVX2 cells differ by 0.046, and by 0.060 from
# float32. Errors give larger differences: BatchNorm without synchronisation 0.14 (0.16 from
# float32; in float32 0.14), the mean of the replicas' gradients instead of their sum 0.48.
AGREE = {"float32": 1e-5, "mixed_bfloat16": 0.08, "mixed_float16": 0.02}
CLOSE = {"float32": 1e-5, "mixed_bfloat16": 0.1, "mixed_float16": 0.1}
# Limits for losses and metrics.
HISTORY = {"float32": 5e-5, "mixed_bfloat16": 0.05, "mixed_float16": 0.1}
# These cells cover every value; one device with float32 is what they are compared with. The other
# cells are marked slow.
FAST = [
    matrix.Cell("one_device", "mixed_bfloat16", True, 4),
    matrix.Cell("two_replicas", "float32", True, 4),
    matrix.Cell("two_replicas", "mixed_float16", False, 4),
]
# Not compiled, so that BatchNorm is synchronised between the workers.
FAST_WORKERS = [matrix.Cell("two_workers", "mixed_bfloat16", False, 4)]


@functools.cache
def _reference(precision, batch_norm):
    """Results of the cell with one device, not compiled, one step per execution."""
    return matrix.train(matrix.Cell("one_device", precision, False, 1), batch_norm)


def _check(cell, found):
    same, exact = (_reference(precision, cell.batch_norm) for precision in (cell.precision, "float32"))
    for reference, limit in ((same, AGREE[cell.precision]), (exact, CLOSE[cell.precision])):
        learnt = np.linalg.norm(reference["after"] - reference["before"])
        assert learnt > 0.1
        assert np.linalg.norm(found["after"] - reference["after"]) < limit * learnt
    np.testing.assert_array_equal(found["before"], same["before"])
    assert found["loss"][1] < found["loss"][0]
    history = {name: values for name, values in same.items() if name not in ("before", "after", "compiled")}
    assert history.keys() == found.keys() - {"before", "after", "compiled"}
    for name, values in history.items():
        # PCP and PDJ are counts: of the limbs and joints, one or two may be at the threshold.
        few = 0.015 if ("pcp" in name or "pdj" in name) and cell.precision != "float32" else 0
        np.testing.assert_allclose(found[name], values, rtol=HISTORY[cell.precision], atol=few, err_msg=name)
    replicas = 2 if cell.devices == "two_replicas" else 1
    assert found["compiled"] == (replicas if cell.xla else 0), "programs that XLA made of the training step"


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=str(cell), marks=() if cell in FAST else pytest.mark.slow)
        for cell in matrix.CELLS
        if cell.devices != "two_workers"
    ],
)
def test_a_cell_trains_as_the_others(cell):
    _check(cell, matrix.train(cell))


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(FAST_WORKERS, id="one"),
        pytest.param(
            [cell for cell in matrix.CELLS if cell.devices == "two_workers" and cell not in FAST_WORKERS],
            id="the_others",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_workers_train_as_one_device(cells, tmp_path):
    path = str(tmp_path / "results.npz")
    command = [sys.executable, "-m", "tests.matrix", path, ";".join(map(str, cells))]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    workers = [
        subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
        for environment in environments(2)
    ]
    try:
        said = [worker.communicate(timeout=400)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    results = np.load(path)
    for cell in cells:
        _check(cell, {name.split("/")[1]: results[name] for name in results.files if name.startswith(f"{cell}/")})
