"""Evaluations that several tests share."""

import pytest

from kpose.evaluate import on_records
from kpose.train import trainer
from tests import tiny


@pytest.fixture(scope="session")
def evaluations(tiny_run, tiny_data, tmp_path_factory):
    """(folders, metrics): two runs evaluated on the same persons."""
    folder = tmp_path_factory.mktemp("evaluations")
    other = str(folder / "run")
    trainer.train(tiny.make_recipe(tiny_data["train"], steps=2), other)
    folders = [str(folder / name) for name in ("one", "two")]
    metrics = [
        on_records.evaluate(workdir, tiny_data["val"], tiny_data["val_annotations"], where)
        for workdir, where in zip((tiny_run, other), folders, strict=True)
    ]
    return folders, metrics
