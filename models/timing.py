"""Times a model's image tower in each way that may run it here, and chooses. Imports torch.

For a process that exports the model: it has the machine almost for itself, and it ends.
"""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from models.choice import Candidates, Choice, counted
from models.image_tower import prepare
from models.info import Backend, Precision, Timing
from models.measure import (
    BATCHES,
    SIZES,
    Costs,
    Key,
    Run,
    costs,
    fastest_precision,
    fewest_threads,
    images_at_once,
    in_passes,
    torch_is_worth_it,
)
from models.openvino_towers import CompiledImages
from models.torch_loader import DTYPES, Parts, move
from models.torch_towers import TorchImages

# fewer are all needed: a pass takes twice as long with half of them
CORES_TO_SPARE: Final = 4


def choose_in_openvino(graph: Path, shape: tuple[int, int], candidates: Candidates) -> Choice:
    """Precision, images of a pass and threads of an image tower's IR. Raises RuntimeError."""
    cores = candidates.cores
    if candidates.precisions == ("fp16",):
        return Choice("openvino", "fp16")  # for a GPU, which is not timed
    towers = {p: CompiledImages(str(graph), p, cores) for p in candidates.precisions}
    passes = _costs({p: tower.forward for p, tower in towers.items()}, shape, SIZES)
    at_once = {p: images_at_once(passes[p]) for p in passes}
    batches = {p: in_passes(passes[p], at_once[p]) for p in passes}
    precision = fastest_precision(batches)
    measured = [_timing("openvino", p, cores, batches[p]) for p in batches]
    choice = Choice("openvino", precision, at_once[precision], cores, counted(cores))
    if choice.cores >= CORES_TO_SPARE:
        every = {cores: towers[precision]}
        for threads in (choice.cores // 2, choice.cores // 4):
            every[threads] = CompiledImages(str(graph), precision, threads)
        for tower in every.values():
            tower.at_once = at_once[precision]
        times = _costs(every, shape, BATCHES)
        # 0 stands for the most: what OpenVINO takes by itself
        fewest = fewest_threads({threads or choice.cores: times[threads] for threads in times})
        choice = replace(choice, threads=cores if fewest == choice.cores else fewest)
        # these decided about threads: in the place of what decided about the precision
        measured = [timing for timing in measured if timing.precision != precision]
        measured += [_timing("openvino", precision, n, times[n]) for n in times]
    return replace(choice, measured=tuple(measured))


def against_torch(choice: Choice, graph: Path, parts: Parts, cores: int) -> Choice:
    """The choice, or torch where that is clearly faster. The model is used up."""
    tower = CompiledImages(
        str(graph), choice.precision, choice.threads, at_once=choice.images_at_once or 1
    )
    [rows] = _in_torch(parts, [choice.precision], cores).values()
    times = _costs({"openvino": tower, "torch": rows}, parts.shape, BATCHES)
    slower = not torch_is_worth_it(times["torch"], times["openvino"])
    measured = (*choice.measured, _timing("torch", choice.precision, cores, times["torch"]))
    if slower:
        return replace(choice, measured=measured)
    return replace(choice, backend="torch", images_at_once=None, threads=cores, measured=measured)


def choose_in_torch(parts: Parts, candidates: Candidates) -> Choice:
    """The precision of a model that OpenVINO does not run. The model is used up."""
    cores = candidates.cores
    choice = Choice("torch", candidates.precisions[0], threads=cores, cores=counted(cores))
    if len(candidates.precisions) == 1:
        return choice
    runs = _in_torch(parts, candidates.precisions, cores)
    times = _costs(runs, parts.shape, BATCHES)
    measured = tuple(_timing("torch", p, cores, times[p]) for p in times)
    return replace(choice, precision=fastest_precision(times), measured=measured)


def _in_torch(parts: Parts, precisions: Sequence[Precision], cores: int) -> Mapping[Precision, Run]:
    if cores:
        torch.set_num_threads(cores)
    runs: dict[Precision, Run] = {}
    for precision in precisions:
        last = precision == precisions[-1]
        model: Any = parts.model if last else copy.deepcopy(parts.model)
        prepare(model.visual)
        move(model, "cpu", DTYPES[precision])
        runs[precision] = _fetched(TorchImages(replace(parts, model=model).vision()))
    return runs


def _fetched(tower: TorchImages) -> Run:
    return lambda batch: tower.launch(batch)()


def _costs(
    runs: Mapping[Key, Run], shape: tuple[int, int], sizes: Sequence[int]
) -> Mapping[Key, Costs]:
    """In a thread of its own, as a server runs passes: torch is slower there."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(costs, runs, shape, sizes).result()


def _timing(backend: Backend, precision: Precision, threads: int, batches: Costs) -> Timing:
    cpu = {batch: round(1000 * cost.cpu, 3) for batch, cost in batches.items()}
    wall = {batch: round(1000 * cost.wall, 3) for batch, cost in batches.items()}
    return Timing(backend, precision, threads, cpu, wall)
