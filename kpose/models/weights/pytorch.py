"""Reads the tensors of a PyTorch file without PyTorch, and without running code from the file.

PyTorch files are pickles, which can run any code when they are loaded. The reader accepts only the
few names that tensors need and rejects all others. The sizes of the file, of the members of its
archive and of its tensors are checked before they are read.
"""

import collections
import io
import math
import pickle
import zipfile

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError, first_line
from kpose.models.weights.limits import MAX_BYTES, check_bytes, read_member

# First number of a file in the old format.
_MAGIC = 0x1950A86A20F9469CFC6C
# Class of a storage -> dtype of its elements.
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_pytorch(path):
    """The state dict of a PyTorch file, in the old format or the zip format: dict name -> array.

    In a checkpoint, the state dict can be under "state_dict" or "model". If all names start with
    "module.", this prefix is removed.

    Raises:
        InputError: the file is missing, damaged, holds no state dict, or needs code to be run.
    """
    check_bytes(path, files.size(path) or 0)
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise InputError(f"config.model.weights is {path!r}: it cannot be read ({error.strerror})") from None
    try:
        state = _read_zip(path, content) if content[:4] == b"PK\x03\x04" else _read_legacy(path, content)
    except InputError:
        raise
    except Exception as error:
        # A damaged pickle can raise any exception.
        raise InputError(
            f"{path}: not a PyTorch file, or damaged ({type(error).__name__}: {first_line(error)})"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise InputError(
            f"{path}: holds no state dict (tensors by name); save one: torch.save(model.state_dict(), ...)"
        )
    prefix = "module."
    if all(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_legacy(path, content):
    # Content: magic number, protocol, sizes; the pickle; keys of the storages; length and bytes of
    # each storage.
    stream = io.BytesIO(content)

    def load():
        return _TensorUnpickler(stream, path, {}).load()

    if load() != _MAGIC or load() != 1001 or not load()["little_endian"]:
        raise ValueError("no magic number of PyTorch")
    storages = {}
    unpickler = _TensorUnpickler(stream, path, storages)
    state = unpickler.load()
    for key in load():
        kind, numel = storages[key].kind, int.from_bytes(stream.read(8), "little")
        storages[key].fill(stream.read(numel * _itemsize(kind)), numel)
    return _resolve(state, path)


def _read_zip(path, content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_bytes(path, sum(member.file_size for member in archive.infolist()))
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and read_member(archive, f"{root}byteorder") != b"little":
            raise ValueError("big-endian")
        storages = {}
        state = _TensorUnpickler(io.BytesIO(read_member(archive, pickles[0])), path, storages).load()
        for key, storage in storages.items():
            storage.fill(read_member(archive, f"{root}data/{key}"), storage.numel)
    return _resolve(state, path)


class _TensorUnpickler(pickle.Unpickler):
    """Reads tensors and containers of tensors; rejects other names before anything is called."""

    def __init__(self, stream, path, storages):
        super().__init__(stream, encoding="utf-8")
        self._path = path
        self._storages = storages

    def find_class(self, module, name):
        """The object for a name in the pickle, if tensors need it."""
        # A pickle can change attributes of the objects that are returned here; strings, bound
        # methods and a class written in C have none that can be changed.
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise InputError(
            f"{self._path}: rejected, because it loads {module}.{name}, which is not part of a state dict. "
            "Save only the weights: torch.save(model.state_dict(), ...)"
        )

    def persistent_load(self, identifier):
        """The `_Storage` for an identifier in the pickle; its bytes are filled in later."""
        what, kind, key, _, numel = identifier[:5]
        if what != "storage" or kind not in _STORAGES.values() or any(v is not None for v in identifier[5:]):
            raise ValueError(f"{what!r} is not a storage")
        return self._storages.setdefault(key, _Storage(kind, int(numel)))

    def _rebuild_tensor(self, storage, offset, size, stride, *_):
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        return _Tensor(storage, offset, tuple(size), tuple(stride))

    def _rebuild_parameter(self, tensor, *_):
        return tensor


class _Storage:
    __slots__ = ("kind", "numel", "values")

    def __init__(self, kind, numel):
        self.kind, self.numel, self.values = kind, numel, None

    def fill(self, content, numel):
        """Sets the elements from bytes; raises `ValueError` if their number is wrong."""
        if numel != self.numel or len(content) != numel * _itemsize(self.kind):
            raise ValueError("a storage of wrong length")
        if self.kind == "bfloat16":
            # A bfloat16 is the upper half of a float32.
            self.values = (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
        else:
            self.values = np.frombuffer(content, self.kind)


class _Tensor:
    __slots__ = ("storage", "offset", "size", "stride")

    def __init__(self, storage, offset, size, stride):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self, most):
        """The elements as an array.

        Args:
            most: bytes that it may have.

        Raises:
            ValueError: an element is outside the storage.
            MemoryError: the array is larger.
        """
        numbers = (self.offset, *self.size, *self.stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(self.size) != len(self.stride):
            raise ValueError("a tensor of impossible shape")
        values = self.storage.values
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) and (values is None or last >= len(values) or math.prod(self.size) > len(values)):
            raise ValueError("a tensor beyond its storage")
        if math.prod(self.size) * values.itemsize > most:
            raise MemoryError
        start = values[self.offset :]
        strides = [step * values.itemsize for step in self.stride]
        return np.array(np.lib.stride_tricks.as_strided(start, self.size, strides))


def _itemsize(kind):
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _resolve(value, path):
    """The same containers with an array for each tensor.

    Raises:
        InputError: the tensors are too large together. Many tensors can share one storage.
    """
    left = MAX_BYTES

    def resolve(value):
        nonlocal left
        if isinstance(value, _Tensor):
            array = value.array(left)
            left -= array.nbytes
            return array
        return {key: resolve(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    try:
        return resolve(value)
    except MemoryError:
        raise InputError(f"{path}: its tensors have more than {MAX_BYTES / 1e9:g} GB together: not read") from None
