"""The shipped model, fine-tuned on 100 to 2,000 labelled persons of any skeleton.

Layers, joints and input size may differ from those of the shipped model: what fits is taken, and the
log lists what begins anew. Joints with COCO's names start with the shipped model's knowledge.

Paper: that of `kpose.models.movenet`.
Reaches: REACHES
Time: TIME

Records: any that write_coco has written with --select=labelled. Aspect and joints are those of the
records. Square crops with a margin are best, because the shipped model has seen such crops, and
rotations then show real pixels:

python -m tfrecords_tools.write_coco --annotations=person_keypoints_mine.json --images=photos \\
    --output_dir=records --split=train --select=labelled --aspect=1 --context=1.5 --crop_size=192
python -m kpose.train --config=configs/finetune.py --workdir=runs/finetune \\
    --config.data.train='records/train-*' --config.data.val='records/val-*'

What to change when:

fewer than 100 persons      --config.model.frozen_blocks=13 and --config.steps=300
more than 2,000 persons     --config.model.frozen_blocks=0, --config.batch_size=64, more steps
not persons (hands, animals, objects)
                            --config.model.frozen_blocks=0 and more steps, since early layers must
                            change too
left and right look equal (an object without a front)
                            --config.augment.flip=0.0 if its mirror image does not exist
always upright              --config.augment.rotation=10.0
joints outside the box      --config.data.padding=1.25, and records with --context=1.9
small joints, large images  --config.model.input_size='(256,256)', and records with --crop_size=256
another trained model       --config.model.weights=runs/mine, a run of the same network
no validation records       the training runs all its steps; take the last checkpoint
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

    config.model.weights = "movenet_lightning_v1"
    config.model.frozen_blocks = 6

    config.optimizer.learning_rate = 0.0001
    # Joints that begin anew must learn faster than the layers before them may change.
    config.optimizer.joints_factor = 10.0
    return config
