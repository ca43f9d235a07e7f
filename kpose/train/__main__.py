"""Trains a recipe.

python -m kpose.train --config=configs/deeppose.py --workdir=run --config.data.train='records/train-*'

--config is a recipe: a file, or one that kpose ships (configs/deeppose.py, or deeppose). Flags
change its fields: --config.batch_size=32 --config.optimizer.learning_rate=0.01. kpose/config.py
lists all fields. To continue a training that was stopped, run the same command again.
--config=RECIPE:quick trains 20 small steps, as a test of the recipe.
"""

from absl import flags

from kpose.core import cli

try:
    from ml_collections import config_flags

    from kpose import config as config_lib
except ModuleNotFoundError as missing:
    cli.fail_without(missing)

FLAGS = cli.flag_set()
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe: a Python file with get_config(), or the name of a shipped one.", flag_values=FLAGS
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, history, TensorBoard.", required=True, flag_values=FLAGS
)
_PROFILE = flags.DEFINE_string(
    "profile",
    "",
    "FIRST:LAST steps to trace for TensorBoard's profiler (to view it: pip install tensorboard-plugin-profile).",
    flag_values=FLAGS,
)
_WORKER_TIMEOUT = flags.DEFINE_float(
    "worker_timeout",
    600,
    "Seconds to wait at the start for the other workers of TF_CONFIG.",
    lower_bound=1,
    flag_values=FLAGS,
)


def main():
    from kpose.train import trainer

    if _CONFIG.value is None:
        raise cli.InputError("--config is missing: give a recipe, for example --config=configs/deeppose.py")
    trainer.train(_CONFIG.value, _WORKDIR.value, _steps(_PROFILE.value), _WORKER_TIMEOUT.value)


def _steps(text):
    """(first, last) step of --profile=FIRST:LAST; None for an empty text."""
    if not text:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise cli.InputError(f"--profile={text}: give the first and the last step, for example --profile=10:20")
    return int(first), int(last)


def console():
    cli.run(main, FLAGS, __doc__, prepare=config_lib.resolve_flags)


if __name__ == "__main__":
    console()
