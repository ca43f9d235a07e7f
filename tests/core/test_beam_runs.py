"""Jobs as a Beam pipeline: options, progress, errors."""

import builtins
import json
import pathlib

import pytest

from kpose.core import beam_runs, progress
from kpose.core.errors import InputError
from tests import helpers

pytest.importorskip("apache_beam", reason="no Apache Beam: pip install apache-beam")
# Beam's own runner in this process; "DirectRunner" first looks for another on the network.
LOCAL = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]


def _write(path):
    if "bad" in path:
        raise InputError(f"{path}: damaged")
    beam_runs.counter("things")(2)
    pathlib.Path(path).write_text(json.dumps(path))


def test_the_progress_counts_the_units_of_finished_files(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    monkeypatch.setattr(progress, "NEXT_LINES", 0.0)
    paths = {str(tmp_path / name): units for name, units in [("a", 2), ("b", 30), ("c", 400)]}
    with caplog.at_level("INFO", logger="absl"):
        beam_runs.run(beam_runs.import_beam().Map(_write), list(paths), paths, "things", beam_runs.read_options(LOCAL))
    assert [json.loads(pathlib.Path(path).read_text()) for path in paths] == list(paths)
    assert any(record.getMessage().startswith("432 of 432 things") for record in caplog.records)


def test_the_error_of_a_job_is_one_line(tmp_path):
    paths = dict.fromkeys([str(tmp_path / "bad")], 1)
    with pytest.raises(InputError, match="the Beam pipeline failed: .*bad: damaged$") as error:
        beam_runs.run(beam_runs.import_beam().Map(_write), list(paths), paths, "things", beam_runs.read_options(LOCAL))
    helpers.one_line(error)


def test_dask_processes_each_job_for_itself():
    pytest.importorskip("distributed", reason="no Dask: pip install '.[dask]'")
    from apache_beam.runners.dask.dask_runner import DaskOptions

    given = beam_runs.read_options
    assert given(["--runner=DaskRunner"]).view_as(DaskOptions).partition_size == 1
    chosen = given(["--runner=DaskRunner", "--dask_npartitions=4"]).view_as(DaskOptions)
    assert (chosen.npartitions, chosen.partition_size) == (4, None)


def test_without_dask_one_line_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without(name, *args, **named):
        if name == "distributed":
            raise ImportError(name)
        return imported(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="dask is not installed: pip install") as error:
        beam_runs.read_options(["--runner=DaskRunner"])
    helpers.one_line(error)
