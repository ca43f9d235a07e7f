"""Measures kpose on a GPU, in parts: each part is a process of its own with a time limit.

The result of each request is written as soon as it is known, so that nothing is lost if a later one
crashes, hangs or runs out of time. This module imports no TensorFlow, which would take the card's memory.
"""

import dataclasses
import json
import os
import re
import shlex
import tempfile
import threading
import time

from kpose.benchmark import workers

RESULTS, TABLE = "gpu.jsonl", "gpu.md"
_KPOSE, _TORCH = "kpose.benchmark.gpu_worker", "kpose.benchmark.torch_worker"
_PRECISIONS = ("mixed_bfloat16", "float32", "mixed_float16")
_SIDES = {"movenet": 192, "resnet18": 224, "deeppose": 224}
# Seconds of timed steps in each measurement.
_TIME = 2.0
_PROFILED_STEPS = 20
# Columns of the table, after the name of the part: field -> format.
_COLUMNS = {
    "images_per_second": "{:.0f}",
    "share_of_matrix_rate": "{:.1%}",
    "first_call_seconds": "{:.1f}",
    "peak_memory_gib": "{:.1f}",
    "data_wait": "{:.1%}",
}
# Fields of a request that name the mode in the table.
_MODE = ("precision", "xla", "compiled", "steps_per_execution", "batch_size", "augment", "replicas")


@dataclasses.dataclass(frozen=True)
class Part:
    """A process and its requests.

    Attributes:
        name: names the part in the results, and its log.
        module: the worker's module.
        requests: list of dicts, in order.
        needs_data: whether the drawn records must be there first.
    """

    name: str
    module: str
    requests: list
    needs_data: bool = False


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Attributes:
        batches: batch sizes of the training steps, the most important first.
        steps: largest number of timed steps; None: no limit.
        matrix: side of the matrices.
        images: number of drawn images.
        recipe_steps: number of training steps of the demo's recipe.
        together: steps in an execution, beside 1.
    """

    batches: tuple = (512, 64)
    steps: int | None = None
    matrix: int = 8192
    images: int = 800
    recipe_steps: int = 50
    together: int = 16


def parts(sizes, folder):
    """List of all `Part`s, the most important first.

    Args:
        sizes: `Sizes`.
        folder: folder of the drawn records.
    """
    found = [Part("card", _KPOSE, [{"task": "card", "matrix": sizes.matrix}])]
    for precision in _PRECISIONS:
        networks = ("resnet18", "deeppose", "movenet") if precision == _PRECISIONS[0] else ("resnet18", "deeppose")
        for network in networks:
            found += [_training(network, precision, sizes), _torch(network, precision, sizes)]
    modes = (("off", 1), ("on", 1), ("off", 2), ("on", 2))
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        # About 1.5 persons an image: an epoch has nine steps. Even, for two replicas.
        size = {"steps": sizes.recipe_steps, "batch_size": sizes.images // 12 * 2}
        same = {"task": "recipe", "folder": folder, "precision": precision} | size
        requests = [same | {"xla": xla, "replicas": replicas} for xla, replicas in modes]
        found.append(Part(f"recipe-{_short(precision)}", _KPOSE, requests, needs_data=True))
    same = {"folder": folder, "batch_size": sizes.batches[0], "time": _TIME, "steps": sizes.steps}
    mode = {"precision": "mixed_bfloat16", "xla": "on", "steps_per_execution": sizes.together}
    for place in ("device", "host"):
        fed = {"task": "fed", "augment": place} | mode
        found.append(Part(f"input-{place}", _KPOSE, [same | fed], needs_data=True))
    found.append(Part("decoding", _KPOSE, [same | {"task": "decoding"}], needs_data=True))
    return found


def _short(precision):
    return precision.removeprefix("mixed_")


def _training(network, precision, sizes):
    """The `Part` of kpose's training steps of one network in one precision."""
    same = {"task": "train", "network": network, "precision": precision, "time": _TIME, "steps": sizes.steps}
    # Without XLA first, because its compilation takes longest. The second of two requests that differ
    # in the steps of an execution needs no new compilation.
    modes = [(batch, xla, steps) for batch in sizes.batches for xla in ("off", "on") for steps in (sizes.together, 1)]
    requests = [same | {"batch_size": b, "xla": xla, "steps_per_execution": n} for b, xla, n in modes]
    # After the two requests with the same network, which is built once.
    requests.insert(2, _profile(network, precision, sizes))
    return Part(f"{network}-{_short(precision)}", _KPOSE, requests)


def _profile(network, precision, sizes):
    """The request of a profile of steps without XLA, at the first batch size."""
    mode = {"network": network, "precision": precision, "xla": "off", "batch_size": sizes.batches[0]}
    return {"task": "profile", "steps": min(_PROFILED_STEPS, sizes.steps or _PROFILED_STEPS), "rows": 30} | mode


def _torch(network, precision, sizes):
    """The `Part` of the same training steps in PyTorch."""
    same = {"network": network, "precision": precision, "size": _SIDES[network], "joints": 17, "time": _TIME}
    modes = [(batch, compiled) for batch in sizes.batches for compiled in (False, True)]
    requests = [same | {"batch_size": b, "compiled": c, "steps": sizes.steps} for b, c in modes]
    return Part(f"torch-{network}-{_short(precision)}", _TORCH, requests)


def measure(found, folder, records, torch_command, limit, part_limit, images):
    """Runs parts, writes `folder`/gpu.jsonl and gpu.md, prints each result and the table.

    Args:
        found: list of `Part`s.
        folder: folder of results and logs; it is made if it does not exist.
        records: folder for the drawn records.
        torch_command: shell words that start the Python with PyTorch; None: this Python.
        limit: seconds of all parts together.
        part_limit: seconds of one part.
        images: number of drawn images.

    Returns:
        list of the results, dicts as in gpu.jsonl.
    """
    os.makedirs(folder, exist_ok=True)
    results = _Results(folder)
    deadline = time.monotonic() + limit
    drawing = None
    if any(part.needs_data for part in found):
        drawing = threading.Thread(target=_draw, args=(results, folder, records, images, limit), daemon=True)
        drawing.start()
    for part in found:
        left = min(part_limit, deadline - time.monotonic())
        if left < 1:
            results.add({"part": part.name, "error": "no time left"})
            continue
        if part.needs_data:
            drawing.join(left)
        python = shlex.split(torch_command) if torch_command and part.module == _TORCH else None
        _run(part, results, os.path.join(folder, f"{part.name}.log"), python, time.monotonic() + left)
        results.write_table()
    print(results.write_table(), flush=True)
    return results.rows


def _draw(results, folder, records, images, limit):
    """Draws the data while the first parts run, without the card."""
    environment = {"CUDA_VISIBLE_DEVICES": "-1"}
    request = {"task": "data", "folder": records, "images": images}
    started = time.monotonic()
    with workers.Worker(_KPOSE, os.path.join(folder, "data.log"), environment=environment) as worker:
        try:
            answer = worker.ask(request, limit)
            results.add({"part": "data"} | answer | {"whole_seconds": time.monotonic() - started})
        except workers.WorkerError as error:
            results.add({"part": "data", "error": str(error)})


def _run(part, results, log, python, deadline):
    """Runs one part, until its end or `deadline` (of `time.monotonic`)."""
    with workers.Worker(part.module, log, python) as worker:
        for request in part.requests:
            asked = {name: value for name, value in request.items() if name not in ("task", "folder", "time")}
            started = time.monotonic()
            try:
                answer = worker.ask(request, max(deadline - started, 0.1))
            except workers.WorkerError as error:
                answer = {"error": str(error)}
            results.add({"part": part.name} | asked | answer | {"request_seconds": time.monotonic() - started})
            if not worker.alive:
                return


class _Results:
    """Results in memory, in gpu.jsonl and on stdout."""

    def __init__(self, folder):
        self.folder, self.rows, self._rates = folder, [], {}
        self._lock = threading.Lock()

    def add(self, row):
        """Adds a row, with the share of the card's rate of matrix products if both are known."""
        with self._lock:
            self._rates |= {name: value for name, value in row.items() if name.startswith("tflops_")}
            rate = self._rates.get(f"tflops_{_short(row.get('precision', ''))}")
            if rate and "gflop" in row and "images_per_second" in row:
                row["share_of_matrix_rate"] = row["images_per_second"] * row["gflop"] / 1e3 / rate
            if "seconds" in row and not {"images_per_second", "operations"} & set(row):
                row["images_per_second"] = row["batch_size"] / row["seconds"]
            self.rows.append(row)
            with open(os.path.join(self.folder, RESULTS), "a") as file:
                file.write(json.dumps(row) + "\n")
            print(_line(row), flush=True)

    def write_table(self):
        """Writes gpu.md; returns its text."""
        with self._lock:
            text = table(self.rows)
        with open(os.path.join(self.folder, TABLE), "w") as file:
            file.write(text)
        return text


def _shown(value):
    if isinstance(value, list):
        return f"{len(value)} rows"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(row):
    """A row as one line of text."""
    fields = ", ".join(f"{name} {_shown(value)}" for name, value in row.items() if name != "part" and value is not None)
    return f"{row['part']}: {fields}"


def table(rows):
    """The results as Markdown: those with images/s as a table, the others as a list with the profiles' operations."""
    lines = []
    for row in rows:
        if "images_per_second" not in row:
            lines.append(f"- {_line(row)}")
            lines += [f"  - {ms:.3f} ms, {number:.4g} x {name}" for name, ms, number in row.get("operations", ())]
    lines += ["", f"| part | mode | {' | '.join(_COLUMNS)} |", "| --- " * (2 + len(_COLUMNS)) + "|"]
    for row in rows:
        if "images_per_second" in row:
            mode = ", ".join(f"{name} {row[name]}" for name in _MODE if name in row)
            cells = ["" if row.get(n) is None else form.format(row[n]) for n, form in _COLUMNS.items()]
            lines.append(f"| {row['part']} | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(output_dir, names, limit, part_limit, torch_command, sizes):
    """As `measure`, for the parts whose names match the regular expression `names`."""
    with tempfile.TemporaryDirectory() as records:
        found = [part for part in parts(sizes, records) if re.search(names, part.name)]
        return measure(found, output_dir, records, torch_command, limit, part_limit, sizes.images)
