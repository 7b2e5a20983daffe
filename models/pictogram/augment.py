"""Make every training picture look drawn by somebody else: colour, shape, background, blur.

Works on whole batches of tensors. Knows nothing of concepts or captions.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 32  # filters are drawn once per this many pictures
# RGB -> YIQ (NTSC, FCC 1953): hue is the angle in the I-Q plane, saturation its radius
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high)


def chance(n: int, p: float) -> Tensor:
    return torch.rand(n) < p


def colour_matrix(n: int, k: float) -> Tensor:
    """(n, 3, 3): random hue turn, saturation and brightness, grey at times."""
    angle = torch.randn(n) * 0.15 * k
    angle = torch.where(chance(n, 0.08 * k), uniform(n, -math.pi, math.pi), angle)
    radius = uniform(n, 0.5, 1.5) * (~chance(n, 0.12 * k))
    c, s = torch.cos(angle) * radius, torch.sin(angle) * radius
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = c, -s, s, c
    matrix: Tensor = torch.linalg.inv(YIQ) @ turn @ YIQ
    return matrix * uniform(n, 0.8, 1.2)[:, None, None]


def warp(pictures: Tensor, size: int, mirror: Tensor, k: float) -> Tensor:
    """(B, 4, h, w) -> (B, 4, size, size): pose, mirror and a smooth rubber-sheet distortion."""
    n = len(pictures)
    zoom = 1 / uniform(n, 0.89 - 0.21 * k, 1.05 + 0.05 * k)
    angle = torch.randn(n) * math.radians(9) * k
    aspect, shear = uniform(n, -0.12, 0.12).exp(), torch.randn(n) * 0.08 * k
    c, s = torch.cos(angle), torch.sin(angle)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = c * zoom * aspect, (shear - s) * zoom
    theta[:, 1, 0], theta[:, 1, 1] = s * zoom, c * zoom / aspect
    theta[:, 0] *= torch.where(mirror, -1.0, 1.0)[:, None]
    slack = (zoom - 0.85).clamp(min=0.05) * 0.6  # a small picture may lie further off centre
    theta[:, :, 2] = uniform(2 * n, -1, 1).view(n, 2) * slack[:, None]
    grid = functional.affine_grid(theta, [n, 4, size, size], align_corners=False)
    rubber = torch.randn(n, 2, 5, 5) * (0.045 * chance(n, 0.6 * k))[:, None, None, None]
    rubber = functional.interpolate(rubber, size=(size, size), mode="bicubic", align_corners=False)
    grid = grid + rubber.permute(0, 2, 3, 1)
    return functional.grid_sample(pictures, grid, mode="bilinear", align_corners=False).clamp(0, 1)


def backgrounds(n: int, k: float) -> Tensor:
    """(n, 3, 1, 1): white most often, then any colour, light grey, black."""
    ground = torch.ones(n, 3)
    draw = torch.rand(n, 1)
    ground = torch.where(draw < 0.28 * k, torch.rand(n, 3), ground)
    ground = torch.where(draw < 0.10 * k, uniform(n, 0.75, 1.0)[:, None].expand(n, 3), ground)
    ground = torch.where(draw < 0.05 * k, torch.zeros(n, 3), ground)
    return ground[:, :, None, None]


def ink(alpha: Tensor, ground: Tensor) -> Tensor:
    """Premultiplied colour for one-colour icons: any ink that the background does not swallow."""
    n = len(alpha)
    tint = torch.where(chance(n, 0.6)[:, None], torch.rand(n, 3) * 0.3, torch.rand(n, 3))
    light, back = tint.mean(1), ground[:, :, 0, 0].mean(1)
    clash = (light - back).abs() < 0.35
    tint = torch.where(clash[:, None], torch.where(back > 0.5, 0.1, 0.9)[:, None], tint)
    return alpha * tint[:, :, None, None]


def filtered(part: Tensor, k: float) -> Tensor:
    """Blur, coarse pixels, a random 3x3 convolution (RandConv, Xu et al. 2021), or nothing."""
    draw = float(torch.rand(())) / k
    if draw < 0.2:
        sigma = uniform(1, 0.4, 1.3)
        line = torch.exp(-((torch.arange(5) - 2.0) ** 2) / (2 * sigma**2))
        kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 5, 5)
        padded = functional.pad(part, (2, 2, 2, 2), mode="replicate")
        return functional.conv2d(padded, kernel, groups=3)
    if draw < 0.35:
        factor = float(uniform(1, 0.25, 0.75))
        coarse = functional.interpolate(part, scale_factor=factor, mode="bilinear", antialias=True)
        return functional.interpolate(coarse, size=part.shape[-2:], mode="bilinear")
    if draw < 0.5:
        kernel = torch.randn(3, 3, 3, 3) / math.sqrt(27)
        padded = functional.pad(part - 0.5, (1, 1, 1, 1), mode="replicate")
        mixed = functional.conv2d(padded, kernel) + 0.5
        return torch.lerp(part, mixed, uniform(1, 0.0, 0.7))
    return part


def filters(pictures: Tensor, k: float) -> Tensor:
    """One filter for each chunk of the batch: drawn per picture they would cost too much."""
    return torch.cat([filtered(part, k) for part in torch.split(pictures, CHUNK)])


def erase(pictures: Tensor, k: float) -> Tensor:
    """Cover a random box of some pictures: no single detail may carry the answer."""
    n, _, size, _ = pictures.shape
    spot = torch.arange(size)
    half, centre = uniform(2 * n, 4, 13).view(n, 2), uniform(2 * n, 0, size).view(n, 2)
    row = (spot - centre[:, :1]).abs() < half[:, :1]
    column = (spot - centre[:, 1:]).abs() < half[:, 1:]
    box = (row[:, :, None] & column[:, None, :] & chance(n, 0.16 * k)[:, None, None])[:, None]
    return torch.where(box, torch.rand(n, 3, 1, 1), pictures)


def augment(
    pictures: Tensor, size: int, may_mirror: Tensor, one_colour: Tensor, k: float
) -> Tensor:
    """(B, h, w, 4) uint8, premultiplied -> (B, 3, size, size) float32 in -1..1.

    `k` is the strength: 1 in the first stage of training, less in the second.
    """
    n = len(pictures)
    rgba = pictures.permute(0, 3, 1, 2).float() / 255
    rgba = warp(rgba, size, may_mirror & chance(n, 0.3), k)
    alpha = rgba[:, 3:]
    ground = backgrounds(n, k)
    # a linear map, hence right on premultiplied colours
    colour = torch.einsum("nij,njhw->nihw", colour_matrix(n, k), rgba[:, :3])
    colour = torch.minimum(colour.clamp(min=0), alpha)
    colour = torch.where(one_colour[:, None, None, None], ink(alpha, ground), colour)
    x = colour + ground * (1 - alpha)
    x = torch.where(chance(n, 0.04 * k)[:, None, None, None], 1 - x, x)
    contrast = torch.where(chance(n, 0.4 * k), uniform(n, 0.6, 1.2), torch.ones(n))[
        :, None, None, None
    ]
    x = x * contrast + (1 - contrast) * torch.rand(n, 1, 1, 1)
    x = erase(filters(x, k), k)
    x = x + torch.randn_like(x) * (uniform(n, 0, 0.06) * chance(n, 0.3 * k))[:, None, None, None]
    return x.clamp(0, 1) * 2 - 1
