"""TensorFlow Lite files, run by the interpreter of the package ai-edge-litert: no TensorFlow needed."""

import os
import threading

import numpy as np

from kpose.core import startup
from kpose.core.errors import InputError, first_line

# With more threads, small networks are slower: the threads wait for each other.
MOST_THREADS = 4


class LiteModel:
    """A .tflite file, ready to run. Calls from several threads run one after the other.

    Args:
        content: the bytes of the file.
        threads: number of threads; None: the number of CPU cores, at most `MOST_THREADS`.
        name: the file's name, for errors.

    Attributes:
        inputs: the names of its inputs: those of the file's signature, or without a signature those
            of the tensors.
        outputs: the names of its outputs, likewise.

    Raises:
        InputError: the file is damaged, or ai-edge-litert is not installed.
    """

    def __init__(self, content, threads=None, name="the .tflite file"):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError(
                f"TensorFlow Lite files need the package ai-edge-litert: pip install ai-edge-litert ({error})"
            ) from None
        self.name = name
        self._lock = threading.Lock()
        try:
            # It prints a line about its delegate.
            with startup.stderr_aside():
                self._interpreter = Interpreter(model_content=content, num_threads=threads or default_threads())
                self._interpreter.allocate_tensors()
                self._inputs, self._outputs = self._details()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{name}: not a TensorFlow Lite file, or damaged ({first_line(error)})") from None
        self.inputs, self.outputs = tuple(self._inputs), tuple(self._outputs)
        self._shapes = {name: tuple(entry["shape"]) for name, entry in self._inputs.items()}

    def _details(self):
        """The details of the inputs and of the outputs, by name."""
        signatures = self._interpreter.get_signature_list()
        if signatures:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            return runner.get_input_details(), runner.get_output_details()
        details = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        return tuple({entry["name"]: entry for entry in entries} for entries in details)

    def __call__(self, **inputs):
        """Returns the outputs, arrays by name.

        Args:
            **inputs: an array for each name of `inputs`. Sides that the file leaves open, such as
                the number of images, may have any length.

        Raises:
            InputError: the names or shapes are not those of the file, or it cannot be run.
        """
        if set(inputs) != set(self._inputs):
            raise InputError(f"{self.name}: takes {', '.join(self.inputs)}, not {', '.join(inputs) or 'nothing'}")
        arrays = {name: np.ascontiguousarray(value, self._inputs[name]["dtype"]) for name, value in inputs.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        with self._lock:
            if shapes != self._shapes:
                self._resize(shapes)
            try:
                for name, array in arrays.items():
                    self._interpreter.set_tensor(self._inputs[name]["index"], array)
                self._interpreter.invoke()
            except (ValueError, RuntimeError) as error:
                raise InputError(f"{self.name}: cannot be run ({first_line(error)})") from None
            return {name: self._interpreter.get_tensor(entry["index"]) for name, entry in self._outputs.items()}

    def _resize(self, shapes):
        """Prepares the interpreter for inputs of other shapes."""
        for name, shape in shapes.items():
            allowed = tuple(self._inputs[name]["shape_signature"])
            fits = len(shape) == len(allowed) and all(a in (-1, s) for a, s in zip(allowed, shape, strict=True))
            if not fits:
                wanted = ["any" if side == -1 else int(side) for side in allowed]
                raise InputError(f"{self.name}: {name} must be {wanted}, not {list(shape)}".replace("'", ""))
        # Not known while it fails.
        self._shapes = None
        with startup.stderr_aside():
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._inputs[name]["index"], shape, strict=True)
            self._interpreter.allocate_tensors()
        self._shapes = shapes


def default_threads():
    """The number of threads for a small network on this machine."""
    return min(MOST_THREADS, os.cpu_count() or 1)
