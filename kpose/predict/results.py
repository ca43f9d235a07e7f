"""The results of a prediction, kept in a temporary file: those of a long video need no memory."""

import contextlib
import json
import tempfile

from kpose.core import files
from kpose.core.errors import InputError


class Results:
    """COCO results in the order of their places, or as they come; a context manager.

    Args:
        folder: folder of the temporary file, which has no name there; None: that of the system.
    """

    def __init__(self, folder=None):
        self._folder = folder or tempfile.gettempdir()
        try:
            self._file = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self._folder}: cannot be written ({error.strerror or error})") from None
        # (place, start in the file) of the results with places.
        self._placed = []
        self._count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # It is not needed any more: a full disk is an error of `add`.
        with contextlib.suppress(OSError):
            self._file.close()

    def __len__(self):
        return self._count

    def add(self, results, places=()):
        """Adds results, each one line of the file.

        Args:
            results: list of dicts.
            places: their positions in the order of all results; empty: at the end.

        Raises:
            InputError: the temporary file cannot be written.
        """
        try:
            for index, result in enumerate(results):
                if places:
                    self._placed.append((places[index], self._file.tell()))
                self._file.write(json.dumps(result) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"{self._folder}: cannot be written ({error.strerror or error})") from None
        self._count += len(results)

    @contextlib.contextmanager
    def all_or_none(self):
        """A block that adds results without places; an `InputError` in it removes them again."""
        start, count = self._file.tell(), self._count
        try:
            yield
        except InputError:
            # On a full disk this fails too; then the first error counts.
            with contextlib.suppress(OSError):
                self._file.seek(start)
                self._file.truncate()
            self._count = count
            raise

    def __iter__(self):
        return map(json.loads, self._lines())

    def write(self, path):
        """Writes all results as one JSON list to a file.

        Raises:
            InputError: it cannot be written.
        """
        try:
            with files.replacing(path) as file:
                self.print_to(file)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None

    def print_to(self, stream):
        """Writes all results as one JSON list to a text file that is open."""
        stream.write("[")
        for number, line in enumerate(self._lines()):
            stream.write((", " if number else "") + line.rstrip("\n"))
        stream.write("]\n")

    def _lines(self):
        """Yields the lines in their order. Nothing may be added meanwhile."""
        if self._placed:
            for _, start in sorted(self._placed):
                self._file.seek(start)
                yield self._file.readline()
        else:
            self._file.seek(0)
            yield from iter(self._file.readline, "")
        self._file.seek(0, 2)
