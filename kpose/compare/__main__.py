"""Trains recipes with the same budget on synthetic images and prints their metrics in one table.

python -m kpose.compare --output_dir=comparison --steps=400
python -m kpose.compare --output_dir=comparison --recipes=deeppose,deeppose_rle,deeppose_stage2

Every recipe gets the same images, number of steps, batch size and input size. The base of a cascade
is trained before the cascade. The table is also written to OUTPUT_DIR/comparison.md and
comparison.json.
"""

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "comparison", "Folder for data, runs and table; finished runs are reused.", flag_values=FLAGS
)
_RECIPES = flags.DEFINE_list(
    "recipes",
    None,
    "Names of recipes, separated by commas (default: all except demo and those for unstretched crops).",
    flag_values=FLAGS,
)
_STEPS = flags.DEFINE_integer("steps", 400, "Training steps of each recipe.", lower_bound=1, flag_values=FLAGS)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Persons in a batch.", lower_bound=1, flag_values=FLAGS)
_INPUT_SIZE = flags.DEFINE_integer(
    "input_size", 128, "Height and width of the input in pixels.", lower_bound=32, flag_values=FLAGS
)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 3000, "Number of training images.", lower_bound=1, flag_values=FLAGS
)
_VAL_IMAGES = flags.DEFINE_integer("val_images", 400, "Number of validation images.", lower_bound=1, flag_values=FLAGS)


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
