"""Timing in alternation, so that other work on the machine slows all compared functions equally."""

import importlib.util
import statistics
import time

from absl import logging

# Module -> the package that holds it, where the names differ.
PACKAGES = {"cv2": "opencv-python-headless", "keras_cv": "keras-cv"}


def alternate(runs, ways):
    """Median seconds of functions by name, timed in alternation.

    A first call of each function does not count.

    Args:
        runs: how often each function is timed.
        ways: dict name -> function without arguments.
    """
    return alternate_timed(runs, {name: lambda way=way: seconds_of(way) for name, way in ways.items()})


def alternate_timed(runs, ways):
    """As `alternate`, for functions that return their own seconds."""
    for way in ways.values():
        way()
    rounds = [{name: way() for name, way in ways.items()} for _ in range(runs)]
    return {name: statistics.median(seconds[name] for seconds in rounds) for name in ways}


def seconds_of(function):
    """The seconds of one call of a function without arguments."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def ratio(seconds, slow, fast):
    """Seconds of `slow` divided by those of `fast`; None if one of the two was not measured."""
    return seconds[slow] / seconds[fast] if slow in seconds and fast in seconds else None


def skipped(what, *modules):
    """Whether modules of a baseline are missing; if so, logs how to install them."""
    missing = [PACKAGES.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        logging.warning(
            "%s: skipped, not installed: %s. Install with pip install %s (or pip install '.[benchmark]' in a checkout)",
            what,
            ", ".join(missing),
            " ".join(missing),
        )
    return bool(missing)
