"""Things timed in turn, in one run on one machine, so that a busy minute slows all of them."""

import importlib.util
import statistics
import time

from absl import logging


def alternate(runs, ways):
    """Median seconds of functions by name, timed in turn after one run of each that does not count."""
    for way in ways.values():
        way()
    rounds = [{name: seconds_of(way) for name, way in ways.items()} for _ in range(runs)]
    return {name: statistics.median(seconds[name] for seconds in rounds) for name in ways}


def seconds_of(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def ratio(seconds, slow, fast):
    """How many times as fast the second is; None where one of them was not measured."""
    return seconds[slow] / seconds[fast] if slow in seconds and fast in seconds else None


def skipped(what, *modules):
    """Whether a baseline cannot be measured, because modules are not installed; says so."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        logging.warning("%s: skipped, %s not installed: pip install 'kpose[benchmark]'", what, " and ".join(absent))
    return bool(absent)
