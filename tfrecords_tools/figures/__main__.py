"""Draws a data set of articulated people in the COCO keypoint format, so that a demo needs no download.

    python -m tfrecords_tools.figures --output_dir=DIR --num_images=2000 --seed=0 --split=train

writes `DIR/images/train/000000000001.jpg`, ... and `DIR/annotations/person_keypoints_train.json`, which the
other tools read as they read COCO itself.

Every person is a small 3D skeleton in a sampled pose, dressed in shaded solids and projected orthographically
into an image with a depth buffer. The buffer also knows which part of whom each pixel shows, and the
visibility flags are read off it:

    v=2  the joint's pixel shows the person's own part at about the joint's depth;
    v=1  it shows something else (another person, an object, the person's own torso, hair, far side ...);
    v=0  the joint lies outside the image; x and y are 0 then.

Nose, eyes and ears hidden by the person's own head, as from behind, are v=1: the head still tells where
they are. Left and right are the person's own. Coordinates are continuous: pixel i covers [i, i + 1).

An image depends on (seed, split, index) alone, never on the other images or the number of workers.
"""

from absl import flags

from kpose.core import cli
from tfrecords_tools.figures.dataset import render_dataset

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where to write.", required=True, flag_values=FLAGS)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 2000, "How many images to draw.", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", 0, "Another seed, other images.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string("split", "train", "Name of the split; splits of a seed differ.", flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0: one a core.", flag_values=FLAGS)


def main():
    render_dataset(_OUTPUT_DIR.value, _NUM_IMAGES.value, _SEED.value, _SPLIT.value, _WORKERS.value)


def console():
    cli.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    console()
