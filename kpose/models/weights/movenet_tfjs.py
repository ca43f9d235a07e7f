"""Weights of the TensorFlow.js graph models of MoveNet, read without TensorFlow.js.

A graph model is a JSON file with the graph and a list of weights, and binary files that the list
names. Only plain arrays are read.
"""

import json
import math
import os
import re

import numpy as np

from kpose.core.errors import InputError

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "bool": "u1"}
_CONVOLUTIONS = ("_FusedConv2D", "FusedDepthwiseConv2dNative", "DepthwiseConv2dNative")
# Parts of a head: the name in the graph -> the end of the layer's name.
_PARTS = {"separable_": "_depthwise", "re_lu_": "_pointwise", "conv2d_": ""}
# Pattern in the name of a node -> name of the layer in `kpose.models.movenet`. The first match
# counts.
_LAYERS = (
    (r"model_1/model/out_relu/", lambda m: "Conv_1"),
    (r"model_1/model/(\w+?)(?:_relu|_BN)?/", lambda m: m[1]),
    (r"model_1/conv2d(?:_(\d))?/", lambda m: ("lateral_top", "lateral_9", "lateral_5", "lateral_2")[int(m[1] or 0)]),
    (r"model_1/separable_conv2d(?:_(\d))?/", lambda m: f"pyramid_{m[1] or 0}_depthwise"),
    (r"model_1/re_lu(?:_(\d))?/", lambda m: f"pyramid_{m[1] or 0}_pointwise"),
    # MultiPose has the further heads box_scale_0 and box_offset_0, and kpt_ before the joints' heads.
    (r"box_scale_0/(separable_|re_lu_|conv2d_)", lambda m: f"box_size{_PARTS[m[1]]}"),
    (r"box_offset_0/(separable_|re_lu_|conv2d_)", lambda m: f"box_offset{_PARTS[m[1]]}"),
    (r"(heatmap|regress|center|offset)_0/separable_", lambda m: f"{m[1]}_depthwise"),
    (r"(heatmap|regress|center|offset)_0/re_lu_", lambda m: f"{m[1]}_pointwise"),
    (r"(heatmap|regress|center|offset)_0/conv2d_", lambda m: m[1]),
)


def read(path):
    """The graph and the weights of a graph model.

    Args:
        path: the JSON file; the binary files are in the same folder.

    Returns:
        List of nodes (dicts), and dict name -> array.

    Raises:
        InputError: a file is missing or damaged, or has an unknown format.
    """
    try:
        with open(path) as file:
            model = json.load(file)
        nodes, groups = model["modelTopology"]["node"], model["weightsManifest"]
        return nodes, {name: array for group in groups for name, array in _arrays(path, group)}
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}: give the .json file of a TensorFlow.js model") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a TensorFlow.js graph model ({error!r})") from None


def assign(network, path):
    """Sets the weights of a `kpose.models.movenet` network from a graph model of MoveNet.

    Args:
        network: the `keras.Model`, from `movenet` or `multipose`.
        path: the JSON file of the graph model.

    Raises:
        InputError: as for `read`, or the width or the number of joints differs from those of the
        network.
    """
    nodes, arrays = read(path)
    wanted = {layer.name: layer for layer in network.layers if "Conv2D" in type(layer).__name__}
    found = {}
    for node in nodes:
        if node["op"] in _CONVOLUTIONS:
            values = [arrays[name] for name in node["input"] if name in arrays]
            match = next(((m, layer) for end, layer in _LAYERS if (m := re.search(end, node["name"]))), None)
            if match:
                found[match[1](match[0])] = values
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    for name, values in found.items():
        shapes = [value.shape for value in values]
        have = [tuple(v.shape) for v in wanted[name].weights] if name in wanted else None
        if shapes != have:
            problems.append(f"{name} has shapes {shapes}, in the network {have}")
    if problems:
        raise InputError(f"{path}: the weights do not fit the network: {'; '.join(problems[:5])}")
    for name, values in found.items():
        wanted[name].set_weights(values)


def _arrays(path, group):
    folder, content = os.path.dirname(path), b""
    for name in group["paths"]:
        with open(os.path.join(folder, os.path.basename(name)), "rb") as file:
            content += file.read()
    offset = 0
    for weight in group["weights"]:
        stored = weight.get("quantization", {}).get("dtype", weight["dtype"])
        if stored not in _DTYPES or "scale" in weight.get("quantization", {}):
            raise InputError(f"{path}: {weight['name']} is stored as {stored}, which cannot be read")
        dtype, count = np.dtype(_DTYPES[stored]), math.prod(weight["shape"])
        if offset + count * dtype.itemsize > len(content):
            raise InputError(f"{path}: the files of its weights are incomplete: {len(content)} bytes")
        array = np.frombuffer(content, dtype, count, offset).astype(_DTYPES[weight["dtype"]])
        yield weight["name"], array.reshape(weight["shape"])
        offset += count * dtype.itemsize
    if offset != len(content):
        raise InputError(f"{path}: the files of its weights have {len(content)} bytes, but it lists {offset}")
