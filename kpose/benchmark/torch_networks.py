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


def make_step(make_network, size, joints, batch_size, precision, compiled):
    """A function without arguments that runs one training step on constant data.

    The step is SGD on the sum of squares, with channels last. It runs on the GPU if there is one.

    Args:
        make_network: `deeppose` or `resnet18`.
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
