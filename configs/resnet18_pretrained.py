"""ResNet-18 from ImageNet's weights, frozen at first: what the report tried, without its collapse to the mean pose.

Paper: "Deep Learning for Human Pose Estimation" (Gupta and Gritton), section 4.5.3, where it "learned to always predict
the mode distribution of keypoints". Here the backbone is frozen only while the head finds its feet. Training logs the
spread of the predictions beside that of the labels, and warns while the model predicts the mean pose for everyone.
Reaches: not published.
Time: as `resnet18`; a frozen epoch is faster.

The weights are torchvision's (BSD-3-Clause); any other file of Keras' or PyTorch's can be named in its place:
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
