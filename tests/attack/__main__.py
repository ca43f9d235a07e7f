"""Runs the fuzzers, each in its own process, and prints one table.

A process that crashes, or that needs too long for one item, is counted and started again at the next
item. The items of a seed are always the same.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

COLUMNS = ("items", "answered", "refused", "crashes", "tracebacks", "too_slow")
# Seconds in which an item must end, and in which a process must have prepared its first one.
ITEM_SECONDS, START_SECONDS = 60, 300
# Bounds that every kind keeps: CPU seconds of one item, and MB by which the memory grows.
MOST_CPU, MOST_MB = 20, 2000


def attack(kind, count, seed, seconds, output_dir):
    """Returns the row of a kind: dict of `COLUMNS`, "cpu" (s) and "mb"; its faults go to `output_dir`.

    Args:
        kind: one of `targets.KINDS`.
        count: number of items.
        seed: an integer.
        seconds: no item begins later than this.
        output_dir: folder for the texts of the faults.
    """
    row = dict.fromkeys(COLUMNS, 0) | {"cpu": 0.0, "mb": 0.0}
    end, first = time.monotonic() + seconds, 0
    while first < count and time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            last = _run_child(kind, first, count, seed, end, folder, row, output_dir)
        if last is None:
            break
        first = last + 1
    return row


def _run_child(kind, first, count, seed, end, folder, row, output_dir):
    """Runs items until the end or a crash; returns the item that ended the process, or None."""
    log = os.path.join(folder, "log")
    command = [sys.executable, "-m", "tests.attack", "--child", kind, str(first), str(count), str(seed), folder]
    with open(log, "wb") as errors:
        child = subprocess.Popen(command, stdout=errors, stderr=errors)
    progress, seen, since = os.path.join(folder, "progress"), -1, time.monotonic()
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
        lines = _lines(progress)
        if len(lines) != seen:
            seen, since = len(lines), time.monotonic()
        if time.monotonic() - since > (ITEM_SECONDS if lines else START_SECONDS):
            break
    in_time = time.monotonic() < end
    ended = child.poll()
    if ended is None:
        child.kill()
        child.wait()
    items = [json.loads(line) for line in _lines(progress)]
    for item in items:
        row["items"] += 1
        row[item["result"]] += 1
        row["cpu"], row["mb"] = max(row["cpu"], item["cpu"]), max(row["mb"], item["mb"])
        if item["result"] == "tracebacks":
            _keep(output_dir, kind, item["number"], item["text"])
    if ended == 0 or not in_time:
        return None
    with open(log, errors="replace") as file:
        text = file.read()[-5000:]
    number = first + len(items)
    if not items and not os.path.exists(progress):
        raise SystemExit(f"{kind}: its valid inputs cannot be prepared:\n{text}")
    row["items"] += 1
    row["too_slow" if ended is None else "crashes"] += 1
    _keep(output_dir, kind, number, f"exit status {ended}\n{text}")
    return number


def _lines(path):
    """The complete lines of a file; none if it does not exist."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [line for line in file if line.endswith("\n")]


def _keep(output_dir, kind, number, text):
    os.makedirs(output_dir, exist_ok=True)
    with open(os.path.join(output_dir, f"{kind}-{number}.txt"), "w") as file:
        file.write(text)


def child(kind, first, count, seed, folder):
    """Runs the items `first` to `count` - 1 of a kind; writes a line of JSON for each."""
    import numpy as np

    from kpose.core import startup

    startup.keep_freed_memory()
    from tests.attack import targets

    prepare = targets.KINDS[kind][0]
    one = prepare(folder)
    # The first uses load libraries and trace graphs.
    for number in range(3):
        _result(one, np.random.default_rng([seed, 10**6 + number]))
    before = _memory()
    with open(os.path.join(folder, "progress"), "w", buffering=1) as file:
        for number in range(first, count):
            start = time.process_time()
            result, text = _result(one, np.random.default_rng([seed, number]))
            cpu = time.process_time() - start
            item = {"number": number, "result": result, "text": text, "cpu": cpu, "mb": _memory() - before}
            file.write(json.dumps(item) + "\n")


def _result(one, rng):
    try:
        return one(rng).value, ""
    except Exception:
        return "tracebacks", traceback.format_exc()


def _memory():
    """Largest memory of this process until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    from tests.attack import targets

    parser = argparse.ArgumentParser(prog="python -m tests.attack")
    parser.add_argument("--kinds", default=",".join(targets.KINDS), help="which, separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the numbers of items")
    parser.add_argument("--seconds", type=float, default=3600, help="limit of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", default="attack", help="folder for the texts of faults")
    options = parser.parse_args()
    shutil.rmtree(options.output_dir, ignore_errors=True)
    print("| kind | " + " | ".join(COLUMNS) + " | CPU s per item | MB |", "| --- " * 9 + "|", sep="\n", flush=True)
    good = True
    for kind in options.kinds.split(","):
        count = max(round(targets.KINDS[kind][1] * options.scale), 1)
        row = attack(kind, count, options.seed, options.seconds, options.output_dir)
        numbers = " | ".join(f"{row[name]:,}" for name in COLUMNS)
        print(f"| {kind} | {numbers} | {row['cpu']:.2f} | {row['mb']:.0f} |", flush=True)
        faults = row["crashes"] + row["tracebacks"] + row["too_slow"]
        good &= not faults and row["cpu"] <= MOST_CPU and row["mb"] <= MOST_MB
    if not good:
        raise SystemExit(f"faults, or a bound of {MOST_CPU} CPU seconds or {MOST_MB} MB exceeded: {options.output_dir}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, first, count, seed, folder = sys.argv[2:]
        child(kind, int(first), int(count), int(seed), folder)
    else:
        main()
