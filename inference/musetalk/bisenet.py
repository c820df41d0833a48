"""Face parsing: what each pixel around a face is, by BiSeNet over a ResNet-18.

Layers bear the names of the published checkpoint (``79999_iter.pth`` of face-parsing.PyTorch), so
that it loads strictly, without the ResNet's own file: it contains those weights.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from inference.masks import MAP_SIDE_PIXELS
from inference.matrix import Bgr

#: Classes of CelebAMask-HQ.
CLASSES = 19
#: Channels of ResNet-18's four stages, at 1/4, 1/8, 1/16 and 1/32 of the picture's sides.
STAGES = (64, 128, 256, 512)
#: Channels to which the deeper stages are brought.
CONTEXT = 128
#: Mean and deviation of ImageNet's red, green and blue, full scale being 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def parse_picture(square: Bgr) -> Bgr:
    """Bring a square picture [side, side, 3] to the network's size: [512, 512, 3].

    Pillow's bilinear filter takes the mean of what it makes smaller, as the network was trained on;
    OpenCV's takes samples.
    """
    size = (MAP_SIDE_PIXELS, MAP_SIDE_PIXELS)
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BILINEAR))


def normalised(pictures: Tensor) -> Tensor:
    """Return what the network reads, [n, 3, 512, 512], of BGR pictures [n, 512, 512, 3], uint8."""
    # One plane at a time: constants that were tensors would have to be copied to the device.
    planes = zip(pictures.flip(3).unbind(3), MEAN, DEVIATION, strict=True)
    return torch.stack([(plane / 255 - mean) / deviation for plane, mean, deviation in planes], 1)


class BiSeNet(nn.Module):
    """Tell the parts of a face apart."""

    def __init__(self) -> None:
        """Build the network with weights still to be loaded."""
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _FeatureFusion()
        self.conv_out = _Head(2 * CONTEXT, 2 * CONTEXT)
        # Training's auxiliary heads: in the checkpoint, but never computed.
        self.conv_out16 = _Head(CONTEXT, 64)
        self.conv_out32 = _Head(CONTEXT, 64)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class of each pixel of images [n, 3, 512, 512]: [n, 512, 512], uint8."""
        return self.logits(images).argmax(1).to(torch.uint8)

    def logits(self, images: Tensor) -> Tensor:
        """Return the score of each class: [n, 19, 512, 512], a third of a gigabyte for n = 16."""
        scores = self.conv_out(self.ffm(*self.cp(images)))
        return functional.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=True)


class _ContextPath(nn.Module):
    """Draw what is large into what is fine: features at 1/8, plain and with their context."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = _ResNet()
        self.arm16 = _AttentionRefinement(STAGES[2])
        self.arm32 = _AttentionRefinement(STAGES[3])
        self.conv_head32 = _ConvNorm(CONTEXT, CONTEXT, 3)
        self.conv_head16 = _ConvNorm(CONTEXT, CONTEXT, 3)
        self.conv_avg = _ConvNorm(STAGES[3], CONTEXT, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        eighth, sixteenth, thirty_second = self.resnet(images)
        whole = self.conv_avg(_mean(thirty_second))
        deep = self.conv_head32(_double(self.arm32(thirty_second) + whole))
        return eighth, self.conv_head16(_double(self.arm16(sixteenth) + deep))


class _ResNet(nn.Module):
    """ResNet-18 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STAGES[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        self.layer1 = _stage(STAGES[0], STAGES[0], stride=1)
        self.layer2 = _stage(STAGES[0], STAGES[1], stride=2)
        self.layer3 = _stage(STAGES[1], STAGES[2], stride=2)
        self.layer4 = _stage(STAGES[2], STAGES[3], stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = functional.relu(self.bn1(self.conv1(images)))
        quarter = self.layer1(functional.max_pool2d(half, 3, stride=2, padding=1))
        eighth = self.layer2(quarter)
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Residual(inputs, outputs, stride), _Residual(outputs, outputs, 1))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut, which is one itself where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if (inputs, stride) != (outputs, 1):
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample.extend([projection, nn.BatchNorm2d(outputs)])

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.downsample(features) + self.bn2(self.conv2(inner)))


class _ConvNorm(nn.Module):
    """A convolution that keeps the size, normalised and cut off at zero."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(features)))


class _AttentionRefinement(nn.Module):
    """Weigh channels by what they are in the picture as a whole."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = _ConvNorm(inputs, CONTEXT, 3)
        self.conv_atten = nn.Conv2d(CONTEXT, CONTEXT, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(CONTEXT)

    def forward(self, features: Tensor) -> Tensor:
        refined: Tensor = self.conv(features)
        return refined * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(refined))))


class _FeatureFusion(nn.Module):
    """Join fine features and their context, and stress the channels that matter."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = _ConvNorm(STAGES[1] + CONTEXT, 2 * CONTEXT, 1)
        self.conv1 = nn.Conv2d(2 * CONTEXT, CONTEXT // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(CONTEXT // 2, 2 * CONTEXT, 1, bias=False)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        joined: Tensor = self.convblk(torch.cat([fine, context], dim=1))
        stress = torch.sigmoid(self.conv2(functional.relu(self.conv1(_mean(joined)))))
        return joined * stress + joined


class _Head(nn.Module):
    """Score the classes."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.conv = _ConvNorm(inputs, inner, 3)
        self.conv_out = nn.Conv2d(inner, CLASSES, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.conv_out(self.conv(features))
        return scores


def _mean(features: Tensor) -> Tensor:
    """Return the mean over the picture: [n, channels, 1, 1]."""
    return features.mean((2, 3), keepdim=True)


def _double(features: Tensor) -> Tensor:
    """Repeat each pixel along both sides."""
    return functional.interpolate(features, scale_factor=2, mode="nearest")
