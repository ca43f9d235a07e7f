"""Stage 2 of the DeepPose cascade, on top of a trained `deeppose_rle`.

Each joint is refined in a sub-image around its position from stage 1, a square in pixels of the
photograph with a side of one torso diameter. It is cut from a crop of 448 x 448 pixels, which shows
the box times 1.2; stage 1 sees the box at 224 x 224. With sub-images of 160 pixels, the scale is
finer than that of stage 1 for all persons of LSP and for 76% of those of devtrain (a part of COCO).
One network serves all joints of a stage. The training displacements are sampled from the error of
stage 1, measured on the training set or on other records (`config.data.errors`), which stage 1 has
overfitted less.

Paper: Toshev and Szegedy, "DeepPose", CVPR 2014, section 3.2: on Leeds Sports Pose 54% average PCP
after stage 1, 61% after stage 3 (published).
Reaches: the whole recipe has not been measured. docs/results.md has small cascades, beside a longer
training of stage 1 for the same time.
Time: 30 epochs, a third of the epochs of stage 1. The network of stage 2 has 2.8 GFLOP for one
person, that of stage 1 has 2.3; the products that cut the sub-images have 4 more.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=560
python -m kpose.train --config=configs/deeppose_stage2.py --workdir=runs/deeppose_stage2 \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_rle")
    config.name = "deeppose_stage2"

    config.epochs = 30

    # 448 pixels are the middle of a stored crop of 560, without resampling.
    config.data.padding = 1.2
    config.model.input_size = (448, 448)

    config.model.name = "cascade"
    config.model.base = "runs/deeppose_rle"
    config.model.sigma = 1.0
    config.model.sub_image = 160
    config.model.filters = (16, 32, 64, 96, 128)
    config.model.hidden = (256,)
    config.augment.half_body = 0.0
    return config
