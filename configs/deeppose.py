"""DeepPose on the fully visible persons of COCO, as Gupta and Gritton published it.

4,037 persons of COCO 2017 with all 17 joints visible; L2 loss summed over the batch; plain SGD at
0.001; 2,700 epochs. At this learning rate the summed loss is at the edge of stability and can
diverge in the first steps. Gradient clipping prevents this. The paper does not mention clipping;
`--config.optimizer.clip_norm=0` trains without it.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton): stage 1 of "DeepPose" (Toshev
and Szegedy, CVPR 2014) with BatchNorm.
Reaches: 31% average PCP on the 159 fully visible persons of COCO val2017 (published).
Time: about 12 hours on one GPU (published).

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=fully_visible
python -m kpose.train --config=configs/deeppose.py --workdir=runs/deeppose --config.data.train='records/train-*'
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
