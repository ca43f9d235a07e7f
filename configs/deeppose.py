"""DeepPose on the fully visible persons of COCO, as Gupta and Gritton published it.

4,037 persons of COCO 2017 with all 17 joints visible; L2 loss summed over the batch of 64; plain
SGD at 0.001, unclipped; at most 2,700 epochs, ended when the validation loss (`data.val`) was not
lower in 30 evaluations, one in 10 epochs. That is 11% of the epochs: the loss of 159 persons is
noisy, and plain SGD stays near the mean pose for long.

The report does not give initial weights. With those of PyTorch the summed loss diverges in the
second step. `fc_init="lecun"` begins where the curvature is far below 2 / rate
(kpose/models/deeppose.py). Measured at 224 x 224 on 184 persons: the gradient norm is 292 in the
first step and 60 to 130 after ten, the rate is 0.001 in every step, and the loss falls to that of
the mean pose in 15 steps. At 96 x 96, the loss in training is 0.28 after 150 steps; the mean pose
has 0.46. (kpose 0.1 clipped the gradient at 20. Its norms were 170 to 580, so its rate was 3.4e-5
to 1.2e-4.) The recipe has not been run to its end.

The other choices that the report leaves open (input range, padding, constants of BatchNorm, dropout,
logged loss, evaluation) are listed in docs/recipes.md.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton): stage 1 of "DeepPose" (Toshev
and Szegedy, CVPR 2014) with BatchNorm.
Reaches: 31% average PCP on the 159 fully visible persons of COCO val2017 (published).
Time: about 12 hours on one GPU (published).

Write val2017 in the same way with --split=val: without validation records the training runs all
its epochs.

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible
python -m kpose.train --config=configs/deeppose.py --workdir=runs/deeppose \\
    --config.data.train='records/train-*' --config.data.val='records/val-*'
"""

from kpose.config import default


def get_config():
    config = default()
    config.name = "deeppose"

    config.batch_size = 64
    config.epochs = 2700
    config.evaluate_every = 10
    config.stop_after = 30

    config.model.name = "deeppose"
    config.model.input_size = (224, 224)
    config.model.dropout = 0.6
    config.model.fc_init = "lecun"

    config.loss.name = "l2"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.001
    config.schedule.name = "constant"
    return config
