"""Models in three dimensions as a camera would see them from several sides.

Knows VTK (the extra `render`; it needs Mesa's EGL, no screen) and one model; knows no names.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from PIL import Image
from vtk.util.numpy_support import vtk_to_numpy

VIEWS = 10  # of each model
SIZE = 256  # pixels
AMBIENT = 0.2  # of a material's own colour


def _lights(scene: Any, rng: np.random.Generator) -> None:
    """A bright one above, at one side; a weak one from the camera."""
    for strength, azimuth, elevation in (
        (rng.uniform(0.5, 0.8), rng.uniform(-70, 70), rng.uniform(20, 80)),
        (rng.uniform(0.15, 0.35), 0.0, 0.0),
    ):
        light = vtk.vtkLight()
        light.SetLightTypeToCameraLight()
        a, e = np.radians(azimuth), np.radians(elevation)
        light.SetPosition(np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e))
        light.SetIntensity(strength)
        scene.AddLight(light)


def _shown(window: Any, ground: float) -> NDArray[np.float32]:
    """(SIZE, SIZE, 3), 0 to 255, before a ground of one grey."""
    window.GetRenderers().GetFirstRenderer().SetBackground(ground, ground, ground)
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    pixels: NDArray[np.uint8] = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
    return pixels.reshape(SIZE, SIZE, 3)[::-1].astype(np.float32)


def views(model: Path, seed: int) -> list[bytes]:
    """PNG files with transparency of a Wavefront model (.obj, with its materials and textures
    beside it); the camera turns around the front, a little above."""
    rng = np.random.default_rng(seed)
    result = []
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)  # it misses authors' own files
    window, scene, reader = vtk.vtkRenderWindow(), vtk.vtkRenderer(), vtk.vtkOBJImporter()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(SIZE, SIZE)
    window.AddRenderer(scene)
    scene.UseFXAAOn()
    reader.SetFileName(str(model))
    material = re.search(rb"^mtllib\s+(.+?)\s*$", model.read_bytes(), re.MULTILINE)
    if material:
        reader.SetFileNameMTL(str(model.parent / material[1].decode("latin-1")))
    reader.SetTexturePath(str(model.parent))
    reader.SetRenderWindow(window)
    reader.Update()
    for actor in scene.GetActors():  # else what is white has no shade
        actor.GetProperty().SetAmbient(AMBIENT)
    for _ in range(VIEWS):
        scene.RemoveAllLights()
        _lights(scene, rng)
        camera = scene.GetActiveCamera()
        camera.SetViewAngle(rng.uniform(18, 40))
        azimuth, elevation = np.radians(rng.normal(0, 35)), np.radians(rng.uniform(0, 35))
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        )
        camera.SetViewUp(0, 1, 0)
        scene.ResetCamera()
        camera.Zoom(1.15)
        scene.ResetCameraClippingRange()
        # what shows of the ground, where it is black and where it is white, says how opaque
        black, white = _shown(window, 0.0), _shown(window, 1.0)
        alpha = (255 - (white - black).mean(2, keepdims=True)).clip(0, 255)
        colour = (black * 255 / np.maximum(alpha, 1)).clip(0, 255)
        picture = Image.fromarray(np.concatenate([colour, alpha], 2).round().astype(np.uint8))
        box = picture.getbbox()
        if box is not None and alpha.mean() > 8:
            file = io.BytesIO()
            picture.crop(box).save(file, "PNG", compress_level=1)
            result.append(file.getvalue())
    return result
