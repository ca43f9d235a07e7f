"""The shipped model, fine-tuned on 100 to 2,000 labelled persons of any skeleton.

Layers, joints and input size may differ from those of the shipped model: what fits is taken, and the
log lists what begins anew. Joints with COCO's names start with the shipped model's knowledge.

Paper: that of `kpose.models.movenet`.
Reaches: on drawn figures with 19 points, 200 persons, 150 steps of 16 at 128 x 128: strict PCP 83.3%
and OKS AP 64.4%; from ImageNet weights 27.9% and 2.6%, from random ones 17.3% and 0.1%. Ground-truth
boxes, no flip test: docs/results.md. On drawn hands, of which no joint is COCO's, 203 for training:
PDJ@0.1 98.0% and OKS AP 91.8% after 360 of the 1,000 steps (mean pose: PDJ@0.1 14.7%):
docs/own_data.md. All with movenet_lightning_v1 as initial weights, the shipped model of that time.
Time: about 47 CPU-milliseconds a person, so 13 minutes for 1,000 steps on two free CPU cores
(estimated from the 150 steps).

Records: any that write_coco has written with --select=labelled. Aspect and joints are those of the
records. Square crops with a margin are best, because the shipped model has seen such crops, and
rotations then show real pixels:

python -m tfrecords_tools.write_coco --annotations=person_keypoints_mine.json --images=photos \\
    --output_dir=records --split=train --select=labelled --aspect=1 --context=1.5 --crop_size=192
python -m kpose.train --config=configs/finetune.py --workdir=runs/finetune \\
    --config.data.train='records/train-*' --config.data.val='records/val-*'

What to change when:

fewer than 100 persons      --config.steps=300
more than 2,000 persons     --config.steps=3000 --config.batch_size=64 --config.model.frozen_blocks=0
                            --config.data.cache=False if the memory is too small for the crops
photographs of people, and most joints are COCO's
                            --config.optimizer.learning_rate=0.00005, which keeps more of what the
                            shipped model knows of them
not people (hands, animals, objects)
                            --config.optimizer.learning_rate=0.0003, which learns new joints in fewer
                            steps. On the drawn hands, OKS AP after 150 steps of 16 at 128 x 128 is
                            51.7%, with the default rate 12.4%. With frozen_blocks=0 too, it is 55.6%
                            and takes 40% longer, and 300 steps of this recipe reach 97.6%. A rate of
                            0.001 is too high (5.0%)
the mirror image does not exist (letters, parts of machines)
                            --config.augment.flip=0.0
always upright              --config.augment.rotation=10.0
joints outside the box      --config.data.padding=1.25, and records with --padding=1.25 --context=1.5
small joints, large images  --config.model.input_size='(256,256)', and records with --crop_size=256
another trained model       --config.model.weights=runs/mine, a run of the same network
no validation records       nothing: all steps are done, and the last checkpoint is used
"""

from kpose.config import load_recipe
from kpose.core import geometry


def get_config():
    config = load_recipe("movenet")
    config.name = "finetune"

    config.batch_size = 32
    config.steps = 1000
    # With few persons an epoch has few steps.
    config.evaluate_every = 5
    config.stop_after = 10

    config.data.aspect = geometry.OF_RECORDS
    config.data.cache = True

    config.augment.rotation = 30.0
    config.augment.scale = (0.8, 1.25)
    config.augment.shift = 0.05
    config.augment.jitter = 0.3
    config.augment.grey = 0.1

    config.model.weights = "movenet_lightning_v4"
    config.model.frozen_blocks = 6

    config.optimizer.learning_rate = 0.0001
    # Joints that begin anew must learn faster than the layers before them may change.
    config.optimizer.joints_factor = 10.0
    return config
