"""Baselines for training: the networks and the training step in PyTorch (the extra `benchmark`)."""

import numpy as np
import torch
from torch import nn


def deeppose(num_joints):
    """`kpose.models.deeppose` with initial weights of PyTorch: 224 x 224 images -> 2K numbers."""
    blocks, channels = [], 3
    for index, (filters, kernel) in enumerate([(96, 11), (256, 5), (384, 3), (384, 3), (256, 3)]):
        # "Same" padding with stride 4 pads 3 and 4 pixels. Here it is 4 and 4: the same amount of
        # work.
        stride, padding = (4, 4) if index == 0 else (1, kernel // 2)
        blocks += [nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU(), nn.BatchNorm2d(filters)]
        if index in (0, 1, 4):
            blocks.append(nn.MaxPool2d(3, 2))
        channels = filters
    units = channels * 6 * 6
    blocks.append(nn.Flatten())
    for hidden in (4096, 4096):
        blocks += [nn.Linear(units, hidden), nn.ReLU(), nn.Dropout(0.6)]
        units = hidden
    return nn.Sequential(*blocks, nn.Linear(units, 2 * num_joints))


class _BasicBlock(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18(num_joints):
    """ResNet-18 (He et al., CVPR 2016) with 2K outputs."""
    blocks = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for filters in (64, 128, 256, 512):
        for index in range(2):
            blocks.append(_BasicBlock(channels, filters, 2 if index == 0 and filters > 64 else 1))
            channels = filters
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2 * num_joints))


# As in `kpose.models.movenet`: expansion, channels, number of blocks, stride of the first; blocks with
# outputs to the pyramid -> its channels there; channels in the heads.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LATERALS = {2: 24, 5: 32, 9: 64}
_HEAD_FILTERS = 96


def _convolution(channels, filters, kernel=1, stride=1, groups=1, activation=None):
    layer = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(layer, activation) if activation else layer


def _separable(channels, filters):
    depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
    return nn.Sequential(depthwise, _convolution(channels, filters, activation=nn.ReLU()))


class _InvertedResidual(nn.Module):
    def __init__(self, expansion, channels, filters, stride):
        super().__init__()
        wide = expansion * channels
        self.body = nn.Sequential(
            _convolution(channels, wide, activation=nn.ReLU6()) if expansion > 1 else nn.Identity(),
            _convolution(wide, wide, 3, stride, wide, nn.ReLU6()),
            _convolution(wide, filters),
        )
        self.adds = stride == 1 and channels == filters

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


class _MoveNet(nn.Module):
    def __init__(self, num_joints):
        super().__init__()
        blocks, laterals, channels = [], {}, 32
        for expansion, filters, number, stride in _STAGES:
            for position in range(number):
                blocks.append(_InvertedResidual(expansion, channels, filters, stride if position == 0 else 1))
                channels = filters
                if len(blocks) - 1 in _LATERALS:
                    laterals[str(len(blocks) - 1)] = _convolution(channels, _LATERALS[len(blocks) - 1])
        self.first = _convolution(3, 32, 3, 2, activation=nn.ReLU6())
        self.blocks, self.laterals = nn.ModuleList(blocks), nn.ModuleDict(laterals)
        widths = [_LATERALS[block] for block in sorted(_LATERALS, reverse=True)]
        self.top = nn.Sequential(_convolution(channels, 1280, activation=nn.ReLU6()), _convolution(1280, widths[0]))
        self.pyramid = nn.ModuleList(map(_separable, widths, [*widths[1:], widths[-1]]))
        numbers = {"heatmap": num_joints, "regress": 2 * num_joints, "center": 1, "offset": 2 * num_joints}
        heads = {
            name: nn.Sequential(_separable(widths[-1], _HEAD_FILTERS), nn.Conv2d(_HEAD_FILTERS, number, 1))
            for name, number in numbers.items()
        }
        self.heads = nn.ModuleDict(heads)
        self.sharpness = nn.Parameter(torch.full((num_joints,), 4.0))
        self.center_sharpness = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        x = self.first(x)
        laterals = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _LATERALS:
                laterals.append(self.laterals[str(index)](x))
        x = self.top(x)
        for level, lateral in zip(self.pyramid, laterals[::-1], strict=True):
            x = level(nn.functional.interpolate(x, scale_factor=2, mode="bilinear") + lateral)
        return self._expectation({name: head(x).float() for name, head in self.heads.items()})

    def _expectation(self, maps):
        """The keypoints, as `kpose.models.movenet.GuidedExpectation`."""
        number, joints, height, width = maps["heatmap"].shape
        y = torch.arange(height, device=maps["heatmap"].device, dtype=torch.float32).repeat_interleave(width)
        x = torch.arange(width, device=maps["heatmap"].device, dtype=torch.float32).repeat(height)
        flat = {name: m.reshape(number, -1, height * width) for name, m in maps.items()}

        def weights(name, far, sharpness):
            return torch.softmax(sharpness * (nn.functional.logsigmoid(flat[name]) - torch.log(far + 1.8)), -1)

        middle = torch.sqrt((y - height // 2) ** 2 + (x - width // 2) ** 2)
        chosen = weights("center", middle, self.center_sharpness)
        joint_y = (chosen * (y + flat["regress"][:, 0::2])).sum(-1, keepdim=True)
        joint_x = (chosen * (x + flat["regress"][:, 1::2])).sum(-1, keepdim=True)
        far = torch.sqrt((y - joint_y) ** 2 + (x - joint_x) ** 2 + 1e-6)
        chosen = weights("heatmap", far, self.sharpness[:, None])
        found_y = (chosen * (y + flat["offset"][:, 0::2])).sum(-1) / height - 0.5
        found_x = (chosen * (x + flat["offset"][:, 1::2])).sum(-1) / width - 0.5
        return torch.stack([found_x, found_y], -1).reshape(number, 2 * joints)


def movenet(num_joints):
    """`kpose.models.movenet` at width 1, without BatchNorm: 2K numbers."""
    return _MoveNet(num_joints)


def make_step(make_network, size, joints, batch_size, precision, compiled):
    """A function without arguments that runs one training step on constant data.

    The step is SGD on the sum of squares, with channels last. It runs on the GPU if there is one.

    Args:
        make_network: `deeppose`, `resnet18` or `movenet`.
        size: side of the images in pixels.
        joints: K.
        batch_size: B.
        precision: a dtype policy of Keras. mixed_bfloat16: autocast to bfloat16; mixed_float16:
            autocast to float16 with scaled gradients.
        compiled: use torch.compile; otherwise eager.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # TensorFlow's defaults: TF32, and a search for the fastest convolution.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    rng = np.random.default_rng(0)
    network = make_network(joints).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-6)
    images = torch.from_numpy(rng.integers(0, 256, (batch_size, 3, size, size), np.uint8)).to(device)
    images = images.float().div(127.5).sub(1.0).to(memory_format=torch.channels_last)
    truth = torch.from_numpy(rng.uniform(-0.5, 0.5, (batch_size, 2 * joints)).astype(np.float32)).to(device)
    dtype = torch.float16 if precision == "mixed_float16" else torch.bfloat16
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    forward = torch.compile(network) if compiled else network

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=precision != "float32"):
            output = forward(images)
        scaler.scale((output.float() - truth).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    return step
