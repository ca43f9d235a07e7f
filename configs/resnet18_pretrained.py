"""ResNet-18 with ImageNet weights; the backbone is frozen for the first 3 epochs.

In the work of Gupta and Gritton, such a network "learned to always predict the mode
distribution of keypoints". Here the backbone is frozen only while the head adapts to it. Training
logs the spread of the predictions beside that of the labels, and a warning while the model predicts
the mean pose for every person.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.3.
Reaches: not published, not measured here.
Time: as `resnet18`; an epoch with the frozen backbone is faster.

The weights are those of torchvision (BSD-3-Clause). Any other Keras or PyTorch weights file can be
named instead with --config.model.weights:
curl -O https://download.pytorch.org/models/resnet18-f37072fd.pth

python -m tfrecords_tools.write_coco --annotations=person_keypoints_train2017.json --images=train2017 \\
    --output_dir=records --split=train --select=labelled --padding=1.5 --crop_size=336
python -m kpose.train --config=configs/resnet18_pretrained.py --workdir=runs/resnet18_pretrained \\
    --config.data.train='records/train-*'
"""

from kpose.config import load_recipe


def get_config():
    config = load_recipe("resnet18")
    config.name = "resnet18_pretrained"

    config.epochs = 50

    config.model.weights = "resnet18-f37072fd.pth"
    config.model.freeze_epochs = 3
    return config
