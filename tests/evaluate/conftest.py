"""Evaluations that several tests share."""

import pytest

from kpose.evaluate import on_records, report


@pytest.fixture(scope="session")
def evaluations(tiny_evaluation, tiny_run, tiny_data, tmp_path_factory):
    """(folders, metrics): two evaluations of the same persons, the second one with the flip test."""
    folder = str(tmp_path_factory.mktemp("flipped"))
    with pytest.MonkeyPatch.context() as patch:
        # Its report is not read, and takes half of the time.
        patch.setattr(report, "write", lambda *_, **__: None)
        other = on_records.evaluate(tiny_run, tiny_data["val"], tiny_data["val_annotations"], folder, flip_test=True)
    return [tiny_evaluation[0], folder], [tiny_evaluation[1], other]
