"""TensorFlow Lite and ONNX files predict the same as Keras."""

import importlib.util
import os
import sys

import pytest
import tensorflow as tf

from kpose.core import skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.export import converted, description


@pytest.mark.parametrize(
    "quantize, largest", [("none", 0.05), pytest.param("float16", 1.0, marks=pytest.mark.slow), ("int8", 4.0)]
)
def test_tflite_predicts_as_keras_and_quantised_files_are_smaller(
    quantize, largest, lite_export, tiny_run, tiny_data, tmp_path
):
    found, folder = lite_export, os.path.dirname(lite_export["path"])
    if quantize != "none":
        folder = str(tmp_path)
        found = converted.export(tiny_run, folder, "tflite", quantize, tiny_data["val"])
    assert found["path"] == os.path.join(folder, "model.tflite") and found["largest_difference"] < largest
    assert os.path.getsize(found["path"]) == found["bytes"]
    assert abs(found["pcp"] - found["pcp_keras"]) < 0.1
    facts = description.read(found["path"])
    assert skeleton_files.of_saved(facts["skeleton"]) is skeletons.COCO
    assert (facts["input_size"], facts["padding"], facts["aspect"]) == ([32, 32], 1.0, 0.0)
    if quantize != "none":
        assert found["bytes"] < 0.9 * lite_export["bytes"]


def test_quantising_without_records_warns_that_pcp_was_not_measured(tiny_run, no_conversion, tmp_path, caplog):
    found = converted.export(tiny_run, str(tmp_path), "tflite", "int8")
    assert "pcp" not in found and "was not measured: name validation records with --records" in caplog.text


def test_a_converter_error_without_a_message_is_reported_by_its_type(tiny_run, tmp_path, monkeypatch):
    class Converter:
        def convert(self):
            raise RuntimeError

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda folder: Converter())
    with pytest.raises(InputError, match="cannot convert this network: RuntimeError"):
        converted.export(tiny_run, str(tmp_path), "tflite")


def test_onnx_predicts_as_keras_or_names_the_missing_package(tiny_run, tmp_path):
    if all(importlib.util.find_spec(name) for name in ("onnxruntime", "tf2onnx")):
        found = converted.export(tiny_run, str(tmp_path), "onnx")
        assert found["largest_difference"] < 0.05
        assert len(description.read(found["path"])["skeleton"]["joints"]) == 17
    else:
        with pytest.raises(InputError, match="is not installed: pip install tf2onnx onnxruntime"):
            converted.export(tiny_run, str(tmp_path), "onnx")
    with pytest.raises(InputError, match="only tflite is quantised"):
        converted.export(tiny_run, str(tmp_path), "onnx", "int8")


def test_the_description_of_an_onnx_file_names_the_missing_package(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a network")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="only with the package onnx: pip install onnx"):
        description.read(str(path))


def test_a_file_that_differs_from_keras_is_not_written(tiny_run, no_conversion, tmp_path, monkeypatch):
    monkeypatch.setattr(converted, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="differ from those of Keras by .* not written"):
        converted.export(tiny_run, str(tmp_path), "tflite")
    assert not os.listdir(tmp_path)
