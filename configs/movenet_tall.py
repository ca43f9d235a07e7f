"""The shipped model's second half: `movenet` trained on at 256 x 192, on rectangles as tall as most people are.

Paper: see `movenet`. People are taller than wide, so a third more pixels here are a third more of each person's length.
The first blocks, which see edges and colours, stay as they are.
Reaches: see "Results" in README.md; like `movenet`'s, its row is one with a pose teacher.
Time: 12 images/s on two CPU cores with AVX2 alone.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=tall --select=labelled --aspect=0.75 --context=1.4 --crop_size=256,192
python -m kpose.train --config=configs/movenet_tall.py --workdir=runs/movenet_tall \\
    --config.model.weights=runs/movenet --config.data.train='records/tall-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("movenet")
    config.name = "movenet_tall"
    config.steps = 700
    config.checkpoint_every = 50

    config.data.aspect = 0.75
    config.data.padding = 1.1

    config.model.input_size = (256, 192)
    config.model.frozen_blocks = 4
    return config
