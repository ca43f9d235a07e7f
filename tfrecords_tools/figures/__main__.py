"""Renders synthetic images of people with COCO keypoint annotations, so the demo needs no download.

python -m tfrecords_tools.figures --output_dir=DIR --num_images=2000 --seed=0 --split=train

writes `DIR/images/train/000000000001.jpg`, ... and `DIR/annotations/person_keypoints_train.json`.
The other tools read them as they read COCO.

Each person is a 3D skeleton in a random pose, covered with shaded solids and projected
orthographically into an image with a depth buffer. A second buffer holds which part of which person
each pixel shows. The two buffers give the visibility flags:

    v=2  the pixel of the joint shows the person's own part at about the joint's depth;
    v=1  it shows something else (another person, an object, the person's own torso, hair, far side ...);
    v=0  the joint is outside the image; x and y are 0.

Nose, eyes and ears that the person's own head hides, as seen from behind, are v=1. Left and right
are the person's own. Coordinates are continuous: pixel i covers [i, i + 1).

An image depends only on (seed, split, index), not on the other images or the number of workers.
"""

from absl import flags

from kpose.core import cli

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for the images and annotations.", required=True, flag_values=FLAGS
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 2000, "Number of images.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the images.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string(
    "split", "train", "Name of the split. Splits with the same seed have different images.", flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer("workers", 0, "Number of processes (0: one per core).", flag_values=FLAGS)


def main():
    from tfrecords_tools.figures.dataset import render_dataset

    render_dataset(_OUTPUT_DIR.value, _NUM_IMAGES.value, _SEED.value, _SPLIT.value, _WORKERS.value)


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
