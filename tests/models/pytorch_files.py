"""Writes PyTorch files without PyTorch, in the old format and in the zip format."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np


class Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


class Tensor:
    def __init__(self, storage, offset, size, stride):
        self.parts = storage, offset, size, stride

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (*self.parts, False, collections.OrderedDict())


KINDS = {"f4": "FloatStorage", "i8": "LongStorage", "f2": "HalfStorage"}


def add_torch_modules(monkeypatch):
    """Adds stand-ins for the modules of PyTorch that the pickles name."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in (*KINDS.values(), "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild():
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    utils._rebuild_tensor_v2 = rebuild
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


class _Pickler(pickle.Pickler):
    def persistent_id(self, item):
        if not isinstance(item, Storage):
            return None
        kind = getattr(sys.modules["torch"], KINDS.get(item.array.dtype.str[1:], "BFloat16Storage"))
        ending = (None,) if self.legacy else ()
        return ("storage", kind, item.key, "cpu", item.array.size, *ending)


def dump(value, stream, legacy=True):
    pickler = _Pickler(stream, 2)
    pickler.legacy = legacy
    pickler.dump(value)


def tensors(state):
    """(tensors by name, each with its own storage; list of the storages) for a dict of arrays."""
    storages, out = [], collections.OrderedDict()
    for name, array in state.items():
        storages.append(Storage(str(len(storages)), np.ascontiguousarray(array)))
        strides = tuple(s // array.itemsize for s in storages[-1].array.reshape(array.shape).strides)
        out[name] = Tensor(storages[-1], 0, array.shape, strides)
    return out, storages


def write_legacy(path, value, storages):
    with open(path, "wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(head, file, 2)
        dump(value, file)
        pickle.dump([s.key for s in storages], file, 2)
        for storage in storages:
            file.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())


def write_zip(path, value, storages):
    content = io.BytesIO()
    dump(value, content, legacy=False)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content.getvalue())
        archive.writestr("model/byteorder", "little")
        for storage in storages:
            archive.writestr(f"model/data/{storage.key}", storage.array.tobytes())


WRITERS = [write_legacy, write_zip]


def batch_norm(state, rng, name, channels):
    for part in ("weight", "bias", "running_mean"):
        state[f"{name}.{part}"] = rng.normal(size=channels).astype(np.float32)
    state[f"{name}.running_var"] = rng.uniform(0.5, 2, channels).astype(np.float32)
    state[f"{name}.num_batches_tracked"] = np.array(7, np.int64)


def conv(state, rng, name, outputs, inputs, kernel):
    state[f"{name}.weight"] = rng.normal(size=(outputs, inputs, kernel, kernel)).astype(np.float32)


def resnet_state(blocks=(2, 2, 2, 2), bottleneck=False, widths=(64, 128, 256, 512)):
    """A state dict with the names and shapes of torchvision."""
    rng, state, inputs = np.random.default_rng(0), collections.OrderedDict(), 64
    conv(state, rng, "conv1", 64, 3, 7)
    batch_norm(state, rng, "bn1", 64)
    for stage, (repeats, width) in enumerate(zip(blocks, widths, strict=True)):
        outputs = 4 * width if bottleneck else width
        for block in range(repeats):
            name = f"layer{stage + 1}.{block}"
            if bottleneck:
                shapes = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            else:
                shapes = [(width, inputs, 3), (width, width, 3)]
            for place, shape in enumerate(shapes, 1):
                conv(state, rng, f"{name}.conv{place}", *shape)
                batch_norm(state, rng, f"{name}.bn{place}", shape[0])
            if block == 0 and inputs != outputs:
                conv(state, rng, f"{name}.downsample.0", outputs, inputs, 1)
                batch_norm(state, rng, f"{name}.downsample.1", outputs)
            inputs = outputs
    state["fc.weight"] = np.zeros((1000, inputs), np.float32)
    state["fc.bias"] = np.zeros(1000, np.float32)
    return state


def lite_state():
    """A state dict with the names of EfficientNet-PyTorch and the shapes of EfficientNet-B0."""
    rng, state, inputs, number = np.random.default_rng(0), collections.OrderedDict(), 32, 0
    conv(state, rng, "_conv_stem", 32, 3, 3)
    batch_norm(state, rng, "_bn0", 32)
    stages = [
        (1, 16, 3, 1),
        (6, 24, 3, 2),
        (6, 40, 5, 2),
        (6, 80, 3, 3),
        (6, 112, 5, 3),
        (6, 192, 5, 4),
        (6, 320, 3, 1),
    ]
    for ratio, outputs, kernel, repeats in stages:
        for _ in range(repeats):
            name, width = f"_blocks.{number}", inputs * ratio
            if ratio > 1:
                conv(state, rng, f"{name}._expand_conv", width, inputs, 1)
                batch_norm(state, rng, f"{name}._bn0", width)
            conv(state, rng, f"{name}._depthwise_conv", width, 1, kernel)
            batch_norm(state, rng, f"{name}._bn1", width)
            conv(state, rng, f"{name}._project_conv", outputs, width, 1)
            batch_norm(state, rng, f"{name}._bn2", outputs)
            inputs, number = outputs, number + 1
    conv(state, rng, "_conv_head", 1280, 320, 1)
    batch_norm(state, rng, "_bn1", 1280)
    state["_fc.weight"] = np.zeros((1000, 1280), np.float32)
    state["_fc.bias"] = np.zeros(1000, np.float32)
    return state
