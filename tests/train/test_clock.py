"""The clock of the day is set back or forward between the starts of a run: nothing depends on it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from kpose import config as config_lib
from kpose.runs import checkpoints
from kpose.train import trainer
from tests import tiny
from tests.train.test_trainer import assert_same_weights

# A library that moves the clock of a process, and of TensorFlow in it, by SHIFT seconds.
LIBRARY = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *t) {
  int code = syscall(SYS_clock_gettime, clock, t);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) t->tv_sec += atol(getenv("SHIFT"));
  return code;
}
int gettimeofday(struct timeval *v, void *zone) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  v->tv_sec = t.tv_sec, v->tv_usec = t.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *p) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (p) *p = t.tv_sec;
  return t.tv_sec;
}
"""
YEAR = 365 * 86400


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler, folder = shutil.which("cc"), tmp_path_factory.mktemp("clock")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    (folder / "clock.c").write_text(LIBRARY)
    path = str(folder / "clock.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, str(folder / "clock.c")], check=True)
    return path


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_clock(library, tiny_data, tmp_path):
    whole, moved = str(tmp_path / "whole"), str(tmp_path / "moved")
    recipe = tiny.make_recipe(tiny_data["train"], tiny_data["val"], **tiny.DEEPPOSE, keep_checkpoints=2)
    recipe.checkpoint_every, recipe.steps = 1, 8
    trainer.train(recipe, whole)

    def run(years, script):
        environment = os.environ | {"LD_PRELOAD": library, "SHIFT": str(int(years * YEAR))}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert int(run(-40, "import time; print(time.gmtime().tm_year)")) < 2000
    for years, steps in ((0, 3), (-40, 5), (30, 6), (-20, 8)):
        recipe.steps = steps
        config_lib.save(recipe, str(tmp_path / "config.json"))
        run(
            years,
            "from kpose import config; from kpose.train import trainer\n"
            f"trainer.train(config.load({str(tmp_path / 'config.json')!r}), {moved!r})",
        )
    assert_same_weights(whole, moved)
    files = [
        {name for name in os.listdir(os.path.join(folder, "checkpoints")) if "." in name} for folder in (whole, moved)
    ]
    assert files[0] == files[1] and len(files[0]) == 4
    assert checkpoints.latest(moved).endswith("step-8")
    with open(os.path.join(moved, "starts.json")) as file:
        assert len(json.load(file)) == 4
    script = f"from kpose.export import saved_model; saved_model.export({moved!r})"
    for years, version in ((30, 1), (-40, 2)):
        run(years, script)
        found = run(-years, f"from kpose.predict import networks; print(networks.open_network({moved!r}).name)")
        assert found == os.path.join(moved, "serving", str(version))
