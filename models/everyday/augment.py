"""Make every training picture look drawn by somebody else, and every photograph taken anew.

One picture at a time, as numpy arrays. Knows nothing of concepts or captions.
"""

import math

import cv2
import numpy as np
from network import IMAGE_SIZE
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Colours = NDArray[np.float32]

# RGB -> YIQ (NTSC, FCC 1953): hue is the angle in the I-Q plane, saturation its radius
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
RGB = np.linalg.inv(YIQ)
# share of the drawings, and of the objects in three dimensions, that lie on a piece of a photograph
ON_PHOTOGRAPH, OBJECTS_ON_PHOTOGRAPH = 0.12, 0.4
MOST = 0.4  # of a photograph with a label: a piece of at least this share still shows the thing


def _pose(drawing: Pixels, mirror: bool, rng: np.random.Generator) -> Colours:
    """(S, S, 4) premultiplied -> (IMAGE_SIZE, IMAGE_SIZE, 4) in 0..1, turned, scaled, bent."""
    size, goal = drawing.shape[0], IMAGE_SIZE
    zoom = rng.uniform(0.72, 1.05) * goal / size
    angle = math.radians(rng.normal(0, 6))
    aspect, shear = math.exp(rng.uniform(-0.1, 0.1)), rng.normal(0, 0.05)
    c, s = math.cos(angle), math.sin(angle)
    linear = zoom * np.array([[c * aspect, -s + shear], [s, c / aspect]])
    if mirror:
        linear[:, 0] *= -1
    slack = goal * (0.5 * max(0.0, 1 - zoom * size / goal) + 0.03)
    shift = goal / 2 + rng.uniform(-slack, slack, 2)
    matrix = np.column_stack([linear, shift - linear @ np.full(2, size / 2)])
    posed = cv2.warpAffine(drawing, matrix, (goal, goal), flags=cv2.INTER_LINEAR)
    if rng.random() < 0.3:  # a smooth rubber-sheet distortion
        field = cv2.resize(rng.normal(0, 0.02 * goal, (5, 5, 2)).astype(np.float32), (goal, goal))
        at = np.mgrid[:goal, :goal].astype(np.float32)
        posed = cv2.remap(posed, at[1] + field[..., 0], at[0] + field[..., 1], cv2.INTER_LINEAR)
    return np.asarray(posed, np.float32) / np.float32(255)


def _recolour(colour: Colours, rng: np.random.Generator) -> Colours:
    angle = rng.normal(0, 0.1) if rng.random() > 0.05 else rng.uniform(-math.pi, math.pi)
    radius = rng.uniform(0.6, 1.4) * (rng.random() > 0.08)
    c, s = math.cos(angle) * radius, math.sin(angle) * radius
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix = RGB @ turn @ YIQ * rng.uniform(0.85, 1.15)
    return np.asarray(cv2.transform(colour, matrix.astype(np.float32)))


def _ground(photograph: Colours | None, rng: np.random.Generator) -> Colours:
    """What the drawing lies on: white most often, then any colour, light grey, black."""
    draw = rng.random()
    if photograph is not None:
        return photograph
    if draw < 0.04:
        return np.zeros(3, np.float32)
    if draw < 0.09:
        return np.full(3, rng.uniform(0.75, 1.0), np.float32)
    return rng.random(3, np.float32) if draw < 0.22 else np.ones(3, np.float32)


def _ink(ground: Colours, rng: np.random.Generator) -> Colours:
    """A colour for one-colour icons that the background does not swallow."""
    tint = rng.random(3, np.float32) * (0.3 if rng.random() < 0.6 else 1.0)
    back = float(ground.mean())
    if abs(float(tint.mean()) - back) < 0.35:
        tint = np.full(3, 0.1 if back > 0.5 else 0.9, np.float32)
    return tint


def _lens(picture: Colours, rng: np.random.Generator) -> Colours:
    """Contrast, blur, coarse pixels, a random convolution (RandConv, Xu et al. 2021), noise, a
    covered box: at most two or three of them at once."""
    size = IMAGE_SIZE
    if rng.random() < 0.25:
        contrast = rng.uniform(0.65, 1.2)
        picture = picture * contrast + (1 - contrast) * rng.random()
    draw = rng.random()
    if draw < 0.08:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 2.2)), np.float32)
    elif draw < 0.18:
        few = int(size * rng.uniform(0.2, 0.7))
        small = cv2.resize(picture, (few, few), interpolation=cv2.INTER_AREA)
        large = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
        picture = np.asarray(large, np.float32)
    elif draw < 0.24:
        mixed = cv2.filter2D(picture - 0.5, -1, rng.normal(0, 1 / 3, (3, 3)))
        mixed = cv2.transform(mixed, rng.normal(0, 3**-0.5, (3, 3)).astype(np.float32)) + 0.5
        share = rng.uniform(0.0, 0.6)
        picture = picture * (1 - share) + mixed * share
    if rng.random() < 0.15:
        noise = rng.standard_normal(picture.shape, np.float32)
        picture = picture + noise * rng.uniform(0, 0.06)
    if rng.random() < 0.08:
        row, column = rng.integers(0, size, 2)
        half = rng.integers(size // 16, size // 5, 2)
        rows = slice(max(0, row - half[0]), row + half[0])
        columns = slice(max(0, column - half[1]), column + half[1])
        picture = picture.copy()
        picture[rows, columns] = rng.random(3)
    return np.asarray(picture, np.float32)


def drawing(
    pixels: Pixels,
    mirror: bool,
    one_colour: bool,
    photograph: Colours | None,
    rng: np.random.Generator,
) -> Pixels:
    """(S, S, 4) uint8, premultiplied -> (IMAGE_SIZE, IMAGE_SIZE, 3) uint8."""
    rgba = _pose(pixels, mirror, rng)
    alpha = rgba[..., 3:]
    ground = _ground(photograph, rng)
    if one_colour:
        colour = alpha * _ink(ground, rng)
    else:  # a linear map, hence right on premultiplied colours
        colour = np.minimum(_recolour(rgba[..., :3], rng).clip(min=0), alpha)
    picture = colour + ground * (1 - alpha)
    if rng.random() < 0.03:
        picture = 1 - picture
    return np.round(_lens(picture, rng).clip(0, 1) * 255).astype(np.uint8)


def crop(photograph: Pixels, rng: np.random.Generator, least: float = 0.06) -> Pixels:
    """A piece of a photograph, at least `least` of it, of a shape between 3:4 and 16:9."""
    height, width = photograph.shape[:2]
    share, ratio = rng.uniform(least, 1.0), math.exp(rng.uniform(math.log(0.75), math.log(1.78)))
    area = share * height * width
    h = int(min(height, (area / ratio) ** 0.5))
    w = int(min(width, (area * ratio) ** 0.5))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    piece = photograph[top : top + h, left : left + w]
    return piece[:, ::-1] if rng.random() < 0.5 else piece


def retaken(photograph: Pixels, rng: np.random.Generator) -> Pixels:
    """Most of a photograph of one thing, as the service shows it or out of shape, at times in other
    colours and through a worse lens."""
    piece = crop(photograph, rng, MOST) if rng.random() < 0.8 else photograph
    picture = on_white(piece) if rng.random() < 0.6 else square(piece, IMAGE_SIZE)
    if rng.random() < 0.5:
        return picture
    colours = _recolour(picture.astype(np.float32) / np.float32(255), rng)
    return np.round(_lens(colours, rng).clip(0, 1) * 255).astype(np.uint8)


def square(piece: Pixels, size: int) -> Pixels:
    """All of it, out of shape: what the classifier is asked about."""
    return np.asarray(cv2.resize(piece, (size, size), interpolation=cv2.INTER_AREA))


def on_white(piece: Pixels) -> Pixels:
    """As the service shows it to the model: the longer side fits, the rest is white."""
    height, width = piece.shape[:2]
    ratio = IMAGE_SIZE / max(height, width)
    h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
    result = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 255, np.uint8)
    top, left = (IMAGE_SIZE - h) // 2, (IMAGE_SIZE - w) // 2
    small = cv2.resize(piece, (w, h), interpolation=cv2.INTER_AREA)
    result[top : top + h, left : left + w] = small
    return result
