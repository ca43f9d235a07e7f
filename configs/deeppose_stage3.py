"""Stage 3 of DeepPose's cascade: refines each joint in a sub-image round where stage 2 put it.

Paper: "DeepPose" (Toshev and Szegedy, CVPR 2014), section 3.2: on Leeds Sports Pose 54% average PCP after stage 1, 61%
after stage 3 (published). Here one network serves all joints of a stage, and the training displacements are drawn from
the error of stage 2, measured on the training set (or on `config.data.errors`, other records, which that stage knows
less by heart).
Reaches: see "Results" in README.md for what it does on a part of COCO.
Time: a third of the epochs of stage 1, each somewhat faster: see `python -m kpose.compare`.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/deeppose_stage3.py --workdir=runs/deeppose_stage3 \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("deeppose_stage2")
    config.name = "deeppose_stage3"
    config.model.base = "runs/deeppose_stage2"
    return config
