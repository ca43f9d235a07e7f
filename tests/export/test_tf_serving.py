"""Exports in TensorFlow Serving: the session loader, gRPC and REST requests, warm-up, configuration."""

import base64
import concurrent.futures
import io
import json
import os
import re
import shutil
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from kpose.core.errors import InputError
from kpose.data import tfrecord
from kpose.export import saved_model, tf_serving
from kpose.predict.model import Model
from tests import helpers

IMAGE = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).numpy()
DOCS_BOX = [120.0, 40.0, 210.0, 480.0]
BOXES = np.float32([[5, 4, 30, 40], [20, 10, 50, 50]])


@pytest.fixture(scope="module")
def base(model_dir):
    return model_dir


class _Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The Predict method of TF Serving: loads the model with the C++ loader and runs its signatures."""

    def __init__(self, folder):
        with tf.Graph().as_default():
            self.session = tf.compat.v1.Session()
            self.signatures = tf.compat.v1.saved_model.load(self.session, ["serve"], folder).signature_def

    def run(self, signature_name, inputs):
        signature = self.signatures[signature_name or "serving_default"]
        fetches = {name: info.name for name, info in signature.outputs.items()}
        return self.session.run(fetches, {signature.inputs[name].name: value for name, value in inputs.items()})

    def Predict(self, request, context):
        response = predict_pb2.PredictResponse()
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        try:
            outputs = self.run(request.model_spec.signature_name, inputs)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.fixture(scope="module")
def server(base):
    return _Server(os.path.join(base, "1"))


@pytest.fixture(scope="module")
def address(server):
    running = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"127.0.0.1:{port}"
    running.stop(0)


@pytest.fixture(scope="module")
def stub(address):
    with grpc.insecure_channel(address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _request(image_bytes, boxes, signature="serving_default"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "kpose", signature
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(image_bytes, tf.string))
    request.inputs["boxes"].CopyFrom(tf.make_tensor_proto(boxes, tf.float32))
    return request


@pytest.fixture(scope="module")
def expected(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    path.write_bytes(IMAGE)
    answer = Model(base).predict(path, BOXES)
    return {"keypoints": answer.keypoints, "scores": answer.scores}


def _assert_expected(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)


def test_grpc_requests_are_answered(stub, expected):
    for request in (_request([IMAGE] * 2, BOXES), _request([IMAGE], BOXES, "serving_people")):
        response = stub.Predict(request, timeout=60)
        _assert_expected({name: tf.make_ndarray(value) for name, value in response.outputs.items()}, expected)


def test_a_bad_grpc_request_is_refused_and_the_next_one_is_answered(stub, expected):
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(_request([IMAGE, b"no image"], BOXES), timeout=60)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "[1] [is neither JPEG nor PNG]" in error.value.details()
    response = stub.Predict(_request([IMAGE] * 2, BOXES), timeout=60)
    _assert_expected({name: tf.make_ndarray(value) for name, value in response.outputs.items()}, expected)


def _docs_code(word):
    """Returns the Python block of docs/serving.md that contains a word."""
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "serving.md")) as file:
        (block,) = (block for block in re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL) if word in block)
    return block


def _rest(server, url, body):
    """Returns TF Serving's answer to a REST request, which has rows ("instances") or columns ("inputs")."""
    assert url == "http://localhost:8501/v1/models/kpose:predict"
    parsed = json.loads(body)
    signature = server.signatures["serving_default"]
    rows = parsed.get("instances")
    inputs = parsed.get("inputs") or {name: [row[name] for row in rows] for name in rows[0]}
    assert inputs.keys() == signature.inputs.keys()
    inputs["image_bytes"] = [base64.b64decode(value["b64"]) for value in inputs["image_bytes"]]
    outputs = {name: value.tolist() for name, value in server.run("serving_default", inputs).items()}
    if rows is None:
        return {"outputs": outputs}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """Writes photo.jpg into the working directory, for the code of docs/serving.md."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(IMAGE)


def test_the_rest_client_of_the_docs_is_answered(server, photo, monkeypatch):
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, body: io.BytesIO(json.dumps(_rest(server, url, body)).encode())
    )
    found = {}
    exec(_docs_code("urllib.request"), found)
    expected = server.run("serving_default", {"image_bytes": [IMAGE], "boxes": [DOCS_BOX]})
    (person,) = found["people"]
    _assert_expected(person, {name: value[0] for name, value in expected.items()})


def test_a_rest_request_in_columns_is_answered(server, expected):
    encoded = {"b64": base64.b64encode(IMAGE).decode()}
    body = json.dumps({"inputs": {"image_bytes": [encoded] * 2, "boxes": BOXES.tolist()}})
    _assert_expected(_rest(server, "http://localhost:8501/v1/models/kpose:predict", body)["outputs"], expected)


def test_the_grpc_client_of_the_docs_is_answered(server, address, photo, monkeypatch):
    connect = grpc.insecure_channel
    monkeypatch.setattr(grpc, "insecure_channel", lambda target: connect({"localhost:8500": address}[target]))
    found = {}
    exec(_docs_code("grpc.insecure_channel"), found)
    expected = server.run("serving_people", {"image_bytes": [IMAGE], "boxes": [DOCS_BOX]})
    np.testing.assert_allclose(found["keypoints"], expected["keypoints"], rtol=1e-4, atol=1e-3)


def test_saved_model_cli_shows_the_signatures(base, capfd):
    from tensorflow.python.tools import saved_model_cli

    # The function behind `saved_model_cli show --all`, whose main would exit this process.
    saved_model_cli._show_all(os.path.join(base, "1"))
    shown = capfd.readouterr().out
    for name in ("serving_default", "serving_people", "serving_pixels", "serving_images"):
        assert f"signature_def['{name}']" in shown
    default = shown.split("signature_def['serving_default']")[1].split("signature_def[")[0]
    assert "inputs['image_bytes'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)" in default
    assert "inputs['boxes'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 4)" in default
    assert "outputs['keypoints'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 17, 3)" in default


def test_there_is_a_warm_up_request_of_every_batch_size_and_it_runs(base, server):
    sizes = []
    for record in tfrecord.read(os.path.join(base, "1", tf_serving.WARM_UP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(bytes(record))
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        keypoints = server.run(request.model_spec.signature_name, inputs)["keypoints"]
        assert request.model_spec.name == "kpose" and np.isfinite(keypoints).all()
        sizes.append(len(keypoints))
    assert sizes == list(tf_serving.BATCH_SIZES)


def test_tf_serving_can_read_the_configuration_and_it_is_not_overwritten(base, quick_exports, tiny_run, tmp_path):
    base = shutil.copytree(base, tmp_path / "kpose")
    with open(os.path.join(base, "models.config")) as file:
        models = text_format.Parse(file.read(), model_server_config_pb2.ModelServerConfig())
    (model,) = models.model_config_list.config
    assert (model.name, model.base_path) == ("kpose", "/models/kpose")
    with open(os.path.join(base, "batching.config")) as file:
        text = file.read()
    allowed = [int(line.split(":")[1]) for line in text.splitlines() if line.startswith("allowed_batch_sizes")]
    # TF Serving requires that the largest batch is the last of the allowed sizes.
    assert allowed == sorted(allowed) and f"max_batch_size {{ value: {allowed[-1]} }}" in text
    with open(os.path.join(base, "docker-compose.yaml")) as file:
        services = yaml.safe_load(file)["services"]
    # Batching refuses requests of `serving_people`, so only the service of a profile may use it.
    batching = {name for name, service in services.items() if any("batching" in word for word in service["command"])}
    assert batching == {"batching"}
    assert [name for name, service in services.items() if "profiles" not in service] == ["cpu"]
    assert services["batching"]["profiles"] == ["batching"] and services["gpu"]["profiles"] == ["gpu"]
    for service in services.values():
        assert service["volumes"] == [f".:{model.base_path}:ro"]
        files_named = [word.partition("=")[2] for word in service["command"] if "_file=" in word]
        assert all(os.path.exists(os.path.join(base, os.path.relpath(f, model.base_path))) for f in files_named)
    changed = os.path.join(base, "models.config")
    with open(changed, "a") as file:
        file.write("# mine\n")
    with quick_exports():
        saved_model.export(tiny_run, str(base))
    with open(changed) as file:
        assert file.read().endswith("# mine\n")


def _models(folder):
    """{name: base path} of a models.config."""
    with open(os.path.join(folder, "models.config")) as file:
        models = text_format.Parse(file.read(), model_server_config_pb2.ModelServerConfig())
    return {model.name: model.base_path for model in models.model_config_list.config}


@pytest.fixture(scope="module")
def named(quick_exports, tiny_run, tmp_path_factory):
    """A folder with two models of different names; the first one has two versions."""
    folder = str(tmp_path_factory.mktemp("named"))
    with quick_exports():
        for name in ("people", "hands", "people"):
            saved_model.export(tiny_run, folder, name=name)
    return folder


def test_one_server_serves_the_models_of_several_names(named):
    assert _models(named) == {"people": "/models/people", "hands": "/models/hands"}
    assert [os.path.isdir(os.path.join(named, *p)) for p in (("people", "2"), ("hands", "1"), ("hands", "2"))] == [
        True,
        True,
        False,
    ]
    with open(os.path.join(named, "docker-compose.yaml")) as file:
        services = yaml.safe_load(file)["services"]
    for service in services.values():
        assert service["volumes"] == [".:/models:ro"]
        for word in service["command"]:
            if "_file=" in word:
                assert os.path.exists(os.path.join(named, os.path.relpath(word.partition("=")[2], "/models")))
    (record, *_) = tfrecord.read(os.path.join(named, "hands", "1", tf_serving.WARM_UP_FILE))
    request = prediction_log_pb2.PredictionLog.FromString(bytes(record)).predict_log.request
    assert request.model_spec.name == "hands"


def test_a_changed_configuration_is_not_broken(tmp_path, caplog):
    (tmp_path / "models.config").write_text("model_config_list {\n}\n")
    tf_serving.write_configuration(str(tmp_path), "people")
    tf_serving.write_configuration(str(tmp_path), "people")
    assert _models(tmp_path) == {"people": "/models/people"}
    with open(tmp_path / "models.config", "a") as file:
        file.write("# mine }\n")
    before = (tmp_path / "models.config").read_text()
    tf_serving.write_configuration(str(tmp_path), "hands")
    assert (tmp_path / "models.config").read_text() == before
    assert "add the model to it yourself" in caplog.text and '"/models/hands"' in caplog.text


def test_exports_with_and_without_names_are_kept_apart(base, named, tiny_run):
    for folder, name, message in (
        (base, "people", "contains an export without a name"),
        (named, None, "contains the models hands, people: choose another --output_dir"),
        (base, "12", "--name=12: give letters"),
        (base, "../x", "give letters"),
    ):
        with pytest.raises(InputError, match=message) as error:
            saved_model.export(tiny_run, folder, name=name)
        helpers.one_line(error)
