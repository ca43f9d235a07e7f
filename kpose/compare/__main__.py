"""Trains recipes under one budget on drawn people and prints them in one table.

python -m kpose.compare --output_dir=comparison --steps=400
python -m kpose.compare --output_dir=comparison --recipes=deeppose,deeppose_rle,deeppose_stage2

Every recipe gets the same persons, the same number of steps, the same batch and the same input size; what it takes from
stage to stage (a cascade's base) is trained first. The table also goes to OUTPUT_DIR/comparison.md and comparison.json.
"""

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "comparison", "Where data, runs and table go; finished runs found there are kept.", flag_values=FLAGS
)
_RECIPES = flags.DEFINE_list(
    "recipes", None, "Which recipes (default: all but the demo's and those of unstretched crops).", flag_values=FLAGS
)
_STEPS = flags.DEFINE_integer("steps", 400, "Steps for each.", lower_bound=1, flag_values=FLAGS)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Their batch.", lower_bound=1, flag_values=FLAGS)
_INPUT_SIZE = flags.DEFINE_integer(
    "input_size", 128, "Their input's side in pixels.", lower_bound=32, flag_values=FLAGS
)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", 3000, "Images to train on.", lower_bound=1, flag_values=FLAGS)
_VAL_IMAGES = flags.DEFINE_integer("val_images", 400, "Images to measure on.", lower_bound=1, flag_values=FLAGS)


def main():
    from kpose.compare import recipes

    table = recipes.compare(
        _OUTPUT_DIR.value,
        _RECIPES.value,
        recipes.Budget(
            steps=_STEPS.value,
            batch_size=_BATCH_SIZE.value,
            input_size=_INPUT_SIZE.value,
            train_images=_TRAIN_IMAGES.value,
            val_images=_VAL_IMAGES.value,
        ),
    )
    print(recipes.markdown(table))


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
