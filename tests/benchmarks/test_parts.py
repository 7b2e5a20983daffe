"""The parts of the harness that need no server."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from benchmarks import bodies, usage
from benchmarks.checkpoint import renamed
from benchmarks.levers.jpeg import by_pillow, other_decoders
from benchmarks.levers.kernels import by_kernel, compiled
from benchmarks.load import parse
from benchmarks.peers.servers import INFINITY, TRANSFORMERS
from benchmarks.pictures import Size, jpeg
from benchmarks.registering import names
from benchmarks.rounds import Spread, figure, in_turns
from benchmarks.run import OF_A_PROCESSOR, pieces
from models import catalog, torch_loader

LINE = (
    '{"requests":100,"seconds":2.0,"connect":1,"read":0,"write":0,"status":3,"timeout":0,'
    '"p50":1.5,"p90":2.5,"p99":9.0,"max":10.0}'
)


def test_sides_take_turns() -> None:
    order: list[str] = []
    sides = {name: (lambda name=name: order.append(name) or len(order)) for name in "ab"}
    assert in_turns(sides, 2) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]


def test_a_peer_is_compared_in_the_precision_that_its_variant_computes_in() -> None:
    spreads = {
        variant: peer.precision(variant)
        for peer in (INFINITY, TRANSFORMERS)
        for variant in peer.variants
    }
    halved = {"bfloat16", "async, bfloat16"}
    assert spreads == {variant: "bf16" if variant in halved else "fp32" for variant in spreads}
    assert halved < spreads.keys()


def test_a_spread_is_the_middle_and_the_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0]).text() == "2.00 (1.00 to 3.00)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.01234, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1,234"),
        (0.000012, "1.2e-05"),
    ],
)  # fmt: skip
def test_a_figure_has_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_the_load_generators_line_is_read_and_failed_requests_do_not_count() -> None:
    load = parse(f"Running 2s test\n  1 threads\n\n{LINE}\n")
    assert (load.requests, load.errors, load.p50, load.max) == (100, 4, 1.5, 10.0)
    assert load.rate == 48.0


def test_bodies_hold_the_picture_and_the_fields(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"\xff\xd8 pixels \r\n")
    form = bodies.multipart([picture], {"labels": "cat,dog"}, tmp_path / "form")
    body = form.first(1)[0]
    assert picture.read_bytes() in body
    assert b'name="labels"\r\n\r\ncat,dog\r\n' in body
    assert body.endswith(f"--{bodies.BOUNDARY}--\r\n".encode())
    coded = bodies.with_base64([picture], tmp_path / "json", lambda text: {"image": text})
    document = json.loads(coded.first(1)[0])
    assert base64.b64decode(document["image"]) == picture.read_bytes()
    assert bodies.raw([picture], tmp_path / "raw").first(1) == [picture.read_bytes()]


def test_a_picture_is_always_the_same_and_differs_from_the_next() -> None:
    size = Size("tiny", 64, 48, 9.0)
    assert jpeg(size, 1) == jpeg(size, 1)
    assert jpeg(size, 1) != jpeg(size, 2)


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated:DeprecationWarning")
def test_every_decoder_is_compared_with_pillow_or_told_to_be_missing() -> None:
    data = jpeg(Size("tiny", 64, 48, 9.0), 1)
    installed, missing = other_decoders()
    names = [line.partition(":")[0] for line in missing]
    assert sorted([*installed, *names]) == ["PyTurboJPEG", "simplejpeg", "torchvision"]
    assert "torchvision" in installed
    for name, decoder in installed.items():
        np.testing.assert_allclose(decoder(data), by_pillow(data), atol=4, err_msg=name)


def test_names_are_distinct_and_without_commas() -> None:
    labels = names(100_000)
    assert len(set(labels)) == 100_000
    assert not any("," in name for name in labels)


def test_usage_of_a_process_is_read_from_proc() -> None:
    here = os.getpid()
    assert usage.tree(here)[0] == here
    assert usage.cpu_seconds(here) > 0
    resident = usage.resident_mb(here)
    assert usage.peak_mb(here) >= resident > 1


def test_unknown_parts_and_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="no part is called 'speed'"):
        pieces("speed")
    with pytest.raises(ValueError, match="limit has no piece 'sky'"):
        pieces("limit.sky")
    assert [name for _, name, _ in pieces("limit.cpu,limit.memory")] == ["cpu", "memory"]
    assert [f"{part}.{name}" for part, name, _ in pieces(OF_A_PROCESSOR)] == [
        "peers.small", "peers.variants", "limit.cpu", "levers.backends", "levers.kernels",
    ]  # fmt: skip


def test_the_name_of_a_processor_leads_out_of_no_folder() -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--processor", "../amx"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert "--processor '../amx': letters a-z, digits and - only" in completed.stderr


def test_the_kernels_of_a_tower_take_all_of_its_time() -> None:
    loader = catalog()["pictogram"].loader
    parts = torch_loader.read("pictogram", loader, "cpu", "fp32", "openvino")
    rows = by_kernel(compiled(parts, "fp32"), 2, parts.shape, seconds=0)
    *each, whole = rows
    assert whole[:2] == [2, "all"]
    assert whole[3] == "100 %"
    assert any(str(name).startswith("Convolution, ") for _, name, _, _ in each)
    assert sum(float(str(ms)) for _, _, ms, _ in each) == pytest.approx(float(str(whole[2])), 0.02)


def test_no_tensor_is_lost_on_the_way_to_transformers() -> None:
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"layers": 2, "width": 128}
    config["text_cfg"] |= {"layers": 2, "width": 64, "heads": 2}
    tensors = open_clip.CLIP(**config).state_dict()
    tensors_renamed = renamed(tensors)
    # q, k and v are one tensor here and three there, for each of 4 blocks, weight and bias
    assert len(tensors_renamed) == len(tensors) + 2 * 2 * 4
    total = sum(value.numel() for value in tensors.values())
    assert sum(value.numel() for value in tensors_renamed.values()) == total
    joined = torch.cat(
        [tensors_renamed[f"text_model.encoder.layers.1.self_attn.{x}_proj.weight"] for x in "qkv"]
    )
    assert np.array_equal(joined, tensors["transformer.resblocks.1.attn.in_proj_weight"])
