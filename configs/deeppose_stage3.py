"""Stage 3 of the DeepPose cascade, on top of a trained `deeppose_stage2`.

Each joint is refined in a sub-image around its position from stage 2, as in `deeppose_stage2`. One
network serves all joints of a stage. The training displacements are sampled from the error of stage
2, measured on the training set or on other records (`config.data.errors`), which stage 2 has
overfitted less.

Paper: Toshev and Szegedy, "DeepPose", CVPR 2014, section 3.2: on Leeds Sports Pose 54% average PCP
after stage 1, 61% after stage 3 (published).
Reaches: the whole recipe has not been measured. docs/results.md has small cascades, beside a longer
training of stage 1 for the same time.
Time: 30 epochs, a third of the epochs of stage 1, with the work of stage 2.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=560
python -m kpose.train --config=configs/deeppose_stage3.py --workdir=runs/deeppose_stage3 \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_stage2")
    config.name = "deeppose_stage3"
    config.model.base = "runs/deeppose_stage2"
    return config
