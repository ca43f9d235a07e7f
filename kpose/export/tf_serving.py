"""Writes the files that TensorFlow Serving and Docker read beside an exported model.

<base>/<version>/assets.extra/tf_serving_warmup_requests   requests that the server runs at its start
<base>/models.config        for --model_config_file
<base>/batching.config      for --batching_parameters_file
<base>/docker-compose.yaml  services: cpu (default), gpu and batching (profiles)
"""

import io
import os

import numpy as np
from PIL import Image

from kpose.core import files
from kpose.data import tfrecord

MODEL_NAME = "kpose"
WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
# The server joins requests up to the largest size and pads a batch to the next size, so that the
# graph is run with few shapes.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
BATCH_TIMEOUT_MICROS = 2000
QUEUED_BATCHES = 100

_MODELS = """model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
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
  volumes: [".:/models/{name}:ro"]
  command: [--model_config_file=/models/{name}/models.config]
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
      - --model_config_file=/models/{name}/models.config
      - --enable_batching=true
      - --batching_parameters_file=/models/{name}/batching.config
"""


def write_configuration(base):
    """Writes the three configuration files into a model's base folder, unless they exist."""
    texts = {
        "models.config": _MODELS.format(name=MODEL_NAME),
        "batching.config": _BATCHING.format(
            largest=BATCH_SIZES[-1],
            timeout=BATCH_TIMEOUT_MICROS,
            queued=QUEUED_BATCHES,
            allowed="\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES),
        ),
        "docker-compose.yaml": _COMPOSE.format(name=MODEL_NAME),
    }
    for name, text in texts.items():
        path = os.path.join(base, name)
        # The user may have changed them.
        if not os.path.exists(path):
            with files.replacing(path) as file:
                file.write(text)


def write_warm_up(folder):
    """Writes warm-up requests, one for each batch size, into a version's folder.

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
        request.model_spec.name = MODEL_NAME
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
