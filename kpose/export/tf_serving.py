"""Writes the files that TensorFlow Serving and Docker read beside an exported model.

<base>/<version>/assets.extra/tf_serving_warmup_requests   requests that the server runs at its start
<folder>/models.config        for --model_config_file
<folder>/batching.config      for --batching_parameters_file
<folder>/docker-compose.yaml  services: cpu (default), gpu and batching (profiles)

The folder is the model's base. A model with a name has the base <folder>/<name>, and one server serves
all models of the folder.
"""

import io
import os
import re

import numpy as np
from absl import logging
from PIL import Image

from kpose.core import files
from kpose.core.errors import InputError
from kpose.data import tfrecord
from kpose.export import model_folder

MODEL_NAME = "kpose"
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
# The server joins requests up to the largest size and pads a batch to the next size, so that the
# graph is run with few shapes.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
BATCH_TIMEOUT_MICROS = 2000
QUEUED_BATCHES = 100

_MODELS = """model_config_list {{
{entry}}}
"""

_ENTRY = """  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""

_BATCHING = """max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: {timeout} }}
max_enqueued_batches {{ value: {queued} }}
pad_variable_length_inputs: false
{allowed}
"""

# TF Serving batches all signatures or none. A batched request must have as many boxes as images,
# which requests of `serving_people` do not have. One bad request makes its batch fail.
_COMPOSE = """# docker compose up            serves on the CPU: gRPC on 8500, REST on 8501
# docker compose --profile gpu up gpu
# docker compose --profile batching up batching
#     joins requests into batches: only serving_default works (serving_people is rejected),
#     and one bad request makes its batch fail, so use it for trusted clients only
x-serving: &serving
  ports: ["8500:8500", "8501:8501"]
  volumes: [".:{root}:ro"]
  command: [--model_config_file={root}/models.config]
services:
  cpu:
    image: tensorflow/serving:latest
    <<: *serving
  gpu:
    image: tensorflow/serving:latest-gpu
    profiles: [gpu]
    deploy:
      resources:
        reservations:
          devices: [{{driver: nvidia, count: 1, capabilities: [gpu]}}]
    <<: *serving
  batching:
    image: tensorflow/serving:latest
    profiles: [batching]
    <<: *serving
    command:
      - --model_config_file={root}/models.config
      - --enable_batching=true
      - --batching_parameters_file={root}/batching.config
"""


def check_name(name, folder):
    """Raises `InputError` for an impossible name of a model, or a folder with exports of the other kind.

    Args:
        name: the model's name; None: the folder is the model's base.
        folder: the folder of the configuration.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII):
        raise InputError(f"--name={name}: give letters, digits, '_', '-' and '.', with a letter in front")
    if name is not None and model_folder.versions(folder):
        raise InputError(
            f"{folder}: contains an export without a name: choose another --output_dir, or leave out --name"
        )
    if name is None and model_folder.named_models(folder):
        names = ", ".join(model_folder.named_models(folder))
        raise InputError(
            f"{folder}: contains the models {names}: choose another --output_dir, or give this one a --name"
        )


def write_configuration(folder, name=None):
    """Writes the three configuration files into a folder, unless they exist.

    A model with a name is added to an existing models.config.

    Args:
        folder: the folder.
        name: the model's name; None: `MODEL_NAME`, and the folder is its base.
    """
    root = "/models" if name else f"/models/{MODEL_NAME}"
    entry = _ENTRY.format(name=name or MODEL_NAME)
    texts = {
        "models.config": _MODELS.format(entry=entry),
        "batching.config": _BATCHING.format(
            largest=BATCH_SIZES[-1],
            timeout=BATCH_TIMEOUT_MICROS,
            queued=QUEUED_BATCHES,
            allowed="\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES),
        ),
        "docker-compose.yaml": _COMPOSE.format(root=root),
    }
    for file_name, text in texts.items():
        path = os.path.join(folder, file_name)
        # The user may have changed them.
        if not os.path.exists(path):
            with files.replacing(path) as file:
                file.write(text)
    if name:
        _add_model(os.path.join(folder, "models.config"), name, entry)


def _add_model(path, name, entry):
    """Adds a model to a models.config that lacks it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if re.search(rf"""name\s*:\s*["']{re.escape(name)}["']""", text):
        return
    if "model_config_list" not in text or not re.search(r"^\}\s*\Z", text, re.MULTILINE):
        logging.warning("%s: was changed: add the model to it yourself:\n%s", path, entry)
        return
    with files.replacing(path) as file:
        file.write(f"{text.rstrip()[:-1]}{entry}}}\n")


def write_warm_up(folder, name=None):
    """Writes warm-up requests, one for each batch size, into a version's folder.

    Args:
        folder: the version's folder.
        name: the model's name; None: `MODEL_NAME`.

    Returns:
        Whether they were written; False if the package tensorflow-serving-api is not installed.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    import tensorflow as tf

    image = io.BytesIO()
    Image.fromarray(np.full((240, 320, 3), 128, np.uint8)).save(image, "JPEG")
    os.makedirs(os.path.dirname(os.path.join(folder, WARM_UP_FILE)), exist_ok=True)
    logs = []
    for size in BATCH_SIZES:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name or MODEL_NAME
        request.model_spec.signature_name = "serving_default"
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image.getvalue()] * size))
        boxes = np.tile(np.float32([[40, 20, 160, 200]]), (size, 1))
        request.inputs["boxes"].CopyFrom(tf.make_tensor_proto(boxes))
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
        logs.append(log.SerializeToString())
    with open(os.path.join(folder, WARM_UP_FILE), "wb") as file:
        for log in logs:
            file.write(tfrecord.frame(log))
    return True
