"""Checkpoints of transformers give its own logits over HTTP; what is odd is refused."""

import contextlib
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from app.images.decode import decode
from app.images.limits import ImageLimits
from models import BadCheckpoint, ModelUnavailable, catalog
from models.encoder import Encoder
from models.huggingface import load_folder
from models.loader import fetch, load
from models.torch_loader import weight_files
from prompts import load_vocabularies
from tests.conftest import NO_HUB, AtHub

LABELS = [
    "a photo of a cat",
    "Two DOGS, in 1999!",
    "a café",
    "electroencephalograph",
    "it's 3 o'clock",
]
# as wide as the published base models, with one of their layers, which are all alike; or small, of
# unusual shape and of several layers
SIZES = {
    "small": {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2,
              "num_attention_heads": 4},
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 1,
             "num_attention_heads": 12},
}  # fmt: skip

# as Google's checkpoints have it: the text tower sees the padding
UNMASKED: dict[str, Any] = {"model_input_names": ["input_ids"]}

Serve = Callable[..., Any]
Save = Callable[..., Path]
# 1 - cosine times the scale that trained models end with
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def words() -> list[str]:
    return [label for vocabulary in load_vocabularies().values() for label in vocabulary.labels]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Save:
    """Save a model of transformers with random weights, its tokenizer and its image processor."""

    def saving(kind: str, size: str, *, act: str | None = None, eos: int = 49_407) -> Path:
        folder = tmp_path_factory.mktemp(f"{kind}-{size}")
        tower = dict(SIZES[size], **({"hidden_act": act} if act else {}))
        # every text vocabulary but CLIP's own is made here, of few words
        few = {"vocab_size": 1200, "max_position_embeddings": 64}
        torch.manual_seed(0)
        model: Any
        if kind == "clip":
            config = transformers.CLIPConfig(
                text_config={**tower, "eos_token_id": eos},
                vision_config={**tower, "image_size": 96, "patch_size": 16},
                projection_dim=48,
            )
            model, tokenizer = transformers.CLIPModel(config), _clip_tokenizer()
            processor = transformers.CLIPImageProcessor(
                size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}
            )
        elif kind == "siglip":
            config = transformers.SiglipConfig(
                text_config={**tower, **few},
                vision_config={**tower, "image_size": 90, "patch_size": 14},
            )
            model, tokenizer = transformers.SiglipModel(config), _siglip_tokenizer(folder, words)
            processor = transformers.SiglipImageProcessor(size={"height": 90, "width": 90})
        else:
            config = transformers.Siglip2Config(
                text_config={**tower, **few},
                vision_config={**tower, "num_patches": 36, "patch_size": 16},
            )
            model, tokenizer = transformers.Siglip2Model(config), _siglip2_tokenizer(words)
            processor = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=36)
        for name, parameter in model.named_parameters():
            # what is zero or one at first would hide a tensor that went to the wrong place
            noise = torch.randn_like(parameter)
            parameter.data = parameter.data + 0.05 * noise if "norm" in name else 0.05 * noise
        model.logit_scale.data.fill_(math.log(100))
        if act:  # in one file, as processors are saved today
            processor = transformers.CLIPProcessor(processor, tokenizer)
        for part in (model, tokenizer, processor):
            part.save_pretrained(folder)
        return folder

    return saving


def _clip_tokenizer() -> Any:
    reference = SimpleTokenizer()
    vocabulary = {piece: place for piece, place in reference.encoder.items() if place < 49_406}
    vocabulary |= {"<|startoftext|>": 49_406, "<|endoftext|>": 49_407}
    merges = [pair for pair, _ in sorted(reference.bpe_ranks.items(), key=lambda item: item[1])]
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)


def _siglip_tokenizer(folder: Path, words: list[str]) -> Any:
    text = folder / "text.txt"
    text.write_text("\n".join(words).lower())
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=600, pad_id=-1, bos_id=-1,
        unk_id=2, eos_id=1, minloglevel=2, character_coverage=1.0,
    )  # fmt: skip
    return transformers.SiglipTokenizer(str(folder / "spiece.model"), **UNMASKED)


def _siglip2_tokenizer(words: list[str]) -> Any:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trained = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    trainer = BpeTrainer(vocab_size=900, special_tokens=[
        *special, *(f"<0x{byte:02X}>" for byte in range(256)),
    ], show_progress=False)  # fmt: skip
    trained.train_from_iterator([word.lower().replace(" ", "▁") for word in words], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    options = {**UNMASKED, "padding_side": "right"}
    return transformers.Siglip2Tokenizer(vocab=model["vocab"], merges=merges, **options)


def _pictures(square: bool) -> list[Image.Image]:
    """Noise that is smooth enough for scaling to keep some of it."""
    dice = np.random.default_rng(0)
    sizes = (
        [(211, 211), (96, 96), (40, 40)] if square else [(301, 200), (150, 333), (96, 96), (97, 50)]
    )
    return [
        Image.fromarray(dice.integers(0, 256, (8, 8, 3), np.uint8), "RGB").resize(size)
        for size in sizes
    ]


@torch.inference_mode()
def _expected(folder: Path, pictures: list[Image.Image]) -> np.ndarray[Any, Any]:
    """Transformers' own logits (pictures, LABELS), with Pillow's scaling, which is ours as well."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    ids = tokenizer(LABELS, padding="max_length", max_length=length, return_tensors="pt")
    inputs = processor(images=pictures, return_tensors="pt")
    output = model(**ids, **inputs)
    return np.asarray(output.logits_per_image)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _served(client: httpx.Client, pictures: list[Image.Image]) -> np.ndarray[Any, Any]:
    """The same by what the server says: scale, bias and the similarities."""
    loaded = client.get("/models").json()["loaded"]
    rows = []
    for picture in pictures:
        response = client.post(
            "/classify",
            files={"image": _png(picture)},
            data={"labels": json.dumps(LABELS), "templates": "{}", "top_k": len(LABELS)},
        )
        assert response.status_code == 200, response.text
        similarities = {
            prediction["label"]: prediction["similarity"]
            for prediction in response.json()["predictions"]
        }
        rows.append([similarities[label] for label in LABELS])
    return loaded["logit_scale"] * np.array(rows) + (loaded["logit_bias"] or 0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("clip", "small", {}),
        ("clip", "small", {"act": "gelu", "eos": 2}),
        ("siglip", "small", {}),
        ("siglip2", "small", {}),
        ("clip", "base", {}),
        ("siglip", "base", {}),
        ("siglip2", "base", {}),
    ],
)
def test_logits_over_http_are_those_of_transformers(
    save: Save, serve: Serve, kind: str, size: str, options: dict[str, Any]
) -> None:
    folder = save(kind, size, **options)
    pictures = _pictures(square=kind == "siglip2")
    expected = _expected(folder, pictures)
    assert np.ptp(expected) > 100 * TOLERANCE, "logits that are all alike prove nothing"
    # compiled towers are held to torch's by tests of their own
    backend = "torch" if size == "base" or options else "auto"
    encoder = load(f"local-dir:{folder}", precision="fp32", backend=backend)
    try:
        with serve(encoder) as client:
            served = _served(client, pictures)
    finally:
        encoder.close()
    np.testing.assert_allclose(served, expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def clip(save: Save) -> Path:
    """A small CLIPModel."""
    return save("clip", "small")


@pytest.fixture(scope="module")
def original(clip: Path) -> Iterator[Encoder]:
    """What is read of it, for comparison with what is read of others."""
    encoder = _in_torch(clip)
    yield encoder
    encoder.close()


def test_the_tokenizer_of_clip_needs_no_transformers(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    encoder = _in_torch(clip)
    assert encoder.info.trims_text
    encoder.close()


def test_another_vocabulary_is_read_by_transformers(
    clip: Path, original: Encoder, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    whole = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = whole["model"]["vocab"]
    vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    encoder = _in_torch(folder)
    cat, dog = original.submit_texts(["a cat", "a dog"]).result()
    np.testing.assert_allclose(encoder.submit_texts(["a cat"]).result()[0], dog, atol=1e-5)
    assert not np.allclose(cat, dog, atol=1e-3)
    assert encoder.info.fingerprint != original.info.fingerprint
    encoder.close()


@pytest.mark.parametrize("spelling", ["tokenizer.json", "added_tokens.json"])
def test_tokens_added_to_clips_vocabulary_are_read_as_transformers_reads_them(
    clip: Path, tmp_path: Path, spelling: str
) -> None:
    folder = _copy(clip, tmp_path)
    _add_a_token(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if spelling == "added_tokens.json":  # as releases before tokenizer.json saved it
        whole = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
        merges = "\n".join(" ".join(pair) for pair in whole["model"]["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
        (folder / "added_tokens.json").write_text(json.dumps({"<sks>": 49_408}))
    prompts = ["a photo of <sks>", "a <sks> dog", "a dog"]
    with torch.inference_mode():
        model = transformers.CLIPModel.from_pretrained(folder).eval()
        output = model.get_text_features(**tokenizer(prompts, padding=True, return_tensors="pt"))
        expected = torch.nn.functional.normalize(output.pooler_output).numpy()
    encoder = _in_torch(folder)
    rows = encoder.submit_texts(prompts).result()
    encoder.close()
    assert 100 * (1 - (rows * expected).sum(1)).max() < TOLERANCE


def _reverse_the_merges(folder: Path) -> None:
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"]["merges"].reverse()
    (folder / "tokenizer.json").write_text(json.dumps(whole))


def _split(folder: Path) -> None:
    """Into two files, as releases before tokenizer.json saved it, with few of the merges."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in whole["model"]["merges"][:2000])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")


def _add_a_vocabulary_that_is_not_read(folder: Path) -> None:
    """The table of CLIP beside a tokenizer.json with another."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = whole["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
    (folder / "tokenizer.json").write_text(json.dumps(whole))


def _name(file: str, use: str, value: object) -> Callable[[Path], None]:
    def naming(folder: Path) -> None:
        path = folder / file
        settings = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**settings, use: value}))

    return naming


@pytest.mark.parametrize(
    "change",
    [
        _reverse_the_merges,
        _split,
        _add_a_vocabulary_that_is_not_read,
        _name("tokenizer_config.json", "bos_token", "<|endoftext|>"),
        _name("special_tokens_map.json", "bos_token", {"content": "<|endoftext|>"}),
        _name("tokenizer_config.json", "extra_special_tokens", ["photo"]),
    ],
)
def test_all_of_a_tokenizer_that_differs_from_clips_is_read_as_transformers_reads_it(
    change: Callable[[Path], None], clip: Path, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    change(folder)
    expected = transformers.AutoTokenizer.from_pretrained(folder)(LABELS)["input_ids"]
    assert expected != transformers.AutoTokenizer.from_pretrained(clip)(LABELS)["input_ids"]
    assert _ids(folder) == expected


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_a_text_tower_that_must_not_see_the_padding_is_refused(
    kind: str, save: Save, tmp_path: Path
) -> None:
    """Transformers' pipeline masks it where the tokenizer says so, or says nothing."""
    folder = _copy(save(kind, "small"), tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for names in (["input_ids", "attention_mask"], None):
        _name("tokenizer_config.json", "model_input_names", names)(folder)
        if names is None:
            del settings["model_input_names"]
            (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(BadCheckpoint, match=r'write there "model_input_names"'):
            _in_torch(folder)


def test_a_vocabulary_without_its_merges_is_refused(clip: Path, tmp_path: Path) -> None:
    folder = _copy(clip, tmp_path)
    _split(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(BadCheckpoint, match=r"neither tokenizer.json nor merges.txt: copy"):
        load(f"local-dir:{folder}")


@pytest.mark.parametrize(("pad", "side"), [("<|endoftext|>", "left"), ("[PAD]", "right")])
def test_padding_of_clips_prompts_neither_moves_them_nor_is_taken_for_their_end(
    pad: str, side: str, clip: Path, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    _add_a_token(folder, pad)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.padding_side = pad, side
    tokenizer.save_pretrained(folder)
    assert _ids(folder) == tokenizer(LABELS)["input_ids"]


def _ids(folder: Path) -> list[list[int]]:
    """What LABELS become, without the zeros behind their ends."""
    _, tokenizer, _ = load_folder(folder)
    rows = tokenizer(LABELS, context_length=77).tolist()
    return [row[: 1 + max(place for place, each in enumerate(row) if each)] for row in rows]


def test_an_added_token_that_the_text_tower_has_no_row_for_is_refused(
    clip: Path, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<sks>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BadCheckpoint, match=r"ids up to 49408, text_config.vocab_size is 49408"):
        load(f"local-dir:{folder}")


def _add_a_token(folder: Path, token: str = "<sks>") -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<sks>", token])
    model = transformers.CLIPModel.from_pretrained(folder)
    model.text_model.resize_token_embeddings(len(tokenizer))
    # as different from the others as a trained one
    model.text_model.get_input_embeddings().weight.data[-1].normal_(std=0.05)
    model.config.text_config.vocab_size = len(tokenizer)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


@pytest.mark.parametrize("form", ["parts", "torch"])
def test_weights_in_parts_or_of_torch_are_the_same_model(
    clip: Path, original: Encoder, tmp_path: Path, form: str
) -> None:
    folder = _copy(clip, tmp_path)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    weights.unlink()
    if form == "parts":
        transformers.CLIPModel.from_pretrained(clip).save_pretrained(folder, max_shard_size="5MB")
        assert not weights.exists()
    else:
        # a buffer that old releases saved
        positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        torch.save(tensors | positions, folder / "pytorch_model.bin")
    encoder = _in_torch(folder)
    rows, expected = (e.submit_texts(["a cat"]).result() for e in (encoder, original))
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    encoder.close()


def test_a_whole_file_counts_before_parts_of_an_earlier_model_as_in_transformers(
    clip: Path, original: Encoder, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    model = transformers.CLIPModel.from_pretrained(clip)
    torch.nn.init.normal_(model.text_model.get_input_embeddings().weight)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="5MB")
    shutil.copy(clip / "model.safetensors", folder)
    encoder = _in_torch(folder)
    rows, expected = (e.submit_texts(["a cat"]).result() for e in (encoder, original))
    np.testing.assert_array_equal(rows, expected)
    encoder.close()


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_tower_is_described_by_the_older_of_two_descriptions_as_in_transformers(
    clip: Path, tmp_path: Path, part: str
) -> None:
    """Where a file of 2022 has both, what the older one leaves out is the default."""
    folder = _copy(clip, tmp_path)
    whole = json.loads((folder / "config.json").read_text())
    whole[f"{part}_dict"] = {**SIZES["small"], "image_size": 96, "patch_size": 16}
    whole[part]["layer_norm_eps"] = 0.1
    (folder / "config.json").write_text(json.dumps(whole))
    _check_logits(folder)


def test_the_image_processor_in_the_file_of_the_processor_counts_as_in_transformers(
    clip: Path, tmp_path: Path
) -> None:
    """And one number stands for three channels."""
    folder = _copy(clip, tmp_path)
    options = json.loads((folder / "preprocessor_config.json").read_text())
    options |= {"image_mean": 0.5, "image_std": 0.25}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": options}))
    _check_logits(folder)


def test_an_edge_that_stands_for_a_square_is_one_as_in_transformers(
    clip: Path, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    options = json.loads((folder / "preprocessor_config.json").read_text())
    options |= {"size": 96, "default_to_square": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(options))
    _check_logits(folder)


def test_clips_vocabulary_in_a_tokenizer_that_keeps_the_case_is_read_as_in_transformers(
    clip: Path, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path)
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["normalizer"] = {"type": "NFC"}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    _check_logits(folder)


def _check_logits(folder: Path) -> None:
    pictures = _pictures(square=False)
    expected = _expected(folder, pictures)
    encoder = _in_torch(folder)
    spec, limits = encoder.info.image, ImageLimits()
    pixels = [decode(_png(picture), spec, limits).pixels for picture in pictures]
    images, texts = encoder.submit_images(pixels).result(), encoder.submit_texts(LABELS).result()
    encoder.close()
    np.testing.assert_allclose(encoder.info.scale * images @ texts.T, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("file", "path", "value", "complaint"),
    [
        ("config.json", "model_type", "blip", "model_type is 'blip', only clip, siglip, siglip2"),
        (
            "config.json",
            "architectures",
            ["CLIPVisionModel"],
            "architectures names CLIPVisionModel",
        ),
        ("config.json", "quantization_config", {"bits": 4}, "quantization_config"),
        ("config.json", "vision_config.hidden_act", "relu", "hidden_act is 'relu'"),
        ("config.json", "vision_config.hidden_act", "gelu", "hidden_act of the two towers differs"),
        ("config.json", "vision_config.num_channels", 4, "num_channels is 4, not 3"),
        (
            "config.json",
            "text_config.num_attention_heads",
            5,
            "not a multiple of num_attention_heads",
        ),
        ("config.json", "text_config.num_attention_heads", 0, "num_attention_heads is 0, not one"),
        ("config.json", "text_config.hidden_size", "96", "text_config.hidden_size is '96', not"),
        ("config.json", "vision_config.layer_norm_eps", "1e-5", "layer_norm_eps is '1e-5', not"),
        ("config.json", "vision_config.image_size", [96, 48], "image_size is [96, 48]"),
        ("config.json", "vision_config.hidden_act", ["gelu"], "hidden_act is ['gelu'], not"),
        ("config.json", "text_config.eos_token_id", [1, 2], "eos_token_id is [1, 2], not one id"),
        ("config.json", "projection_dim", "48", "projection_dim is '48', not one whole number"),
        ("config.json", "text_config", [1], "text_config is not an object of JSON"),
        ("config.json", "architectures", 5, "architectures names 5"),
        (
            "config.json",
            "text_config.num_hidden_layers",
            1,
            "layer_norm1.bias has no place",
        ),
        (
            "config.json",
            "text_config.num_hidden_layers",
            3,
            "layers.2.layer_norm1.weight is missing",
        ),
        ("config.json", "text_config.eos_token_id", 7, "eos_token_id is 7, which the tokenizer"),
        ("config.json", "text_config.vocab_size", 500, "not (500, 96)"),
        (
            "config.json",
            "projection_dim",
            64,
            "has the shape (96, 48), not (96, 64)",
        ),
        ("preprocessor_config.json", "size", {"shortest_edge": 128}, "128"),
        (
            "preprocessor_config.json",
            "size",
            {"shortest_edge": 96, "longest_edge": 120},
            "'longest_edge': 120} and crop_size",
        ),
        ("preprocessor_config.json", "resample", 0, "resample is 0, not 2 or 3"),
        ("preprocessor_config.json", "resample", [3], "resample is [3], not 2 or 3"),
        ("preprocessor_config.json", "rescale_factor", 1.0, "rescale_factor is 1.0"),
        ("preprocessor_config.json", "rescale_factor", None, "rescale_factor is None, not 1 / 255"),
        ("preprocessor_config.json", "image_mean", None, "the image processor has no image_mean"),
        ("preprocessor_config.json", "image_std", [1, 2], "image_std is [1, 2], not one or three"),
        ("preprocessor_config.json", "size", {"height": 96}, "size {'height': 96}"),
        ("preprocessor_config.json", "do_resize", False, "do_resize is False"),
        # transformers takes null for no, too
        ("preprocessor_config.json", "do_rescale", None, "do_rescale is None"),
        ("preprocessor_config.json", "crop_pct", 0.875, "processor's crop_pct is 0.875"),
        ("preprocessor_config.json", "do_flip_channel_order", True, "flip_channel_order is True"),
        ("preprocessor_config.json", "include_top", True, "the image processor's include_top is"),
        ("preprocessor_config.json", "", None, "no preprocessor_config.json"),
        ("tokenizer.json", "", None, "no tokenizer.json"),
        ("model.safetensors", "", None, "no model.safetensors"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_its_name(
    clip: Path, tmp_path: Path, file: str, path: str, value: object, complaint: str
) -> None:
    folder = _copy(clip, tmp_path)
    if path:
        whole = json.loads((folder / file).read_text())
        *parents, last = path.split(".")
        part = whole
        for parent in parents:
            part = part[parent]
        part[last] = value
        (folder / file).write_text(json.dumps(whole))
    else:
        (folder / file).unlink()
    with pytest.raises(BadCheckpoint) as caught:
        load(f"local-dir:{folder}")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_adapter_that_would_not_be_applied_is_refused(clip: Path, tmp_path: Path) -> None:
    folder = _copy(clip, tmp_path)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(BadCheckpoint, match="adapters are not applied"):
        load(f"local-dir:{folder}")


def test_a_number_of_patches_that_the_tower_was_not_trained_on_is_refused(save: Save) -> None:
    folder = save("siglip2", "small")
    options = json.loads((folder / "preprocessor_config.json").read_text())
    options["max_num_patches"] = 64
    (folder / "preprocessor_config.json").write_text(json.dumps(options))
    with pytest.raises(BadCheckpoint, match="max_num_patches is 64, num_patches 36"):
        load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("tensor", "value", "complaint"),
    [
        ("text_projection.weight", math.nan, "tensor text_projection holds NaN or infinity"),
        ("vision_model.post_layernorm.bias", math.inf, "tensor visual.ln_post.bias holds NaN"),
        # the factor itself in the place of its logarithm
        ("logit_scale", 100.0, "logit_scale is 100; it is a logarithm, and its exponential"),
    ],
)
def test_weights_that_give_no_numbers_are_refused(
    clip: Path, tmp_path: Path, tensor: str, value: float, complaint: str
) -> None:
    folder = _copy(clip, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights[tensor].reshape(-1)[0] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=complaint):
        load(f"local-dir:{folder}", precision="fp32", backend="torch")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_file_that_holds_no_object_is_named(clip: Path, tmp_path: Path, file: str) -> None:
    folder = _copy(clip, tmp_path)
    for text, complaint in (("[]", "is not an object of JSON"), ("{", "is no JSON: ")):
        (folder / file).write_text(text)
        with pytest.raises(BadCheckpoint, match=rf"\({file} {complaint}"):
            load(f"local-dir:{folder}")


def test_without_the_extra_the_message_names_it(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save("siglip2", "small")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelUnavailable, match=r"pip install 'openvocab\[hf\]'"):
        load(f"local-dir:{folder}")


@contextlib.contextmanager
def hub_with(folder: Path) -> Iterator[str]:
    """The address of a model hub that has one repository, `someone/tuned`."""
    commit = "0" * 40

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/models/someone/tuned"):
                files = [
                    {"type": "file", "path": file.name, "rfilename": file.name,
                     "oid": file.name, "size": file.stat().st_size}
                    for file in folder.iterdir()
                ]  # fmt: skip
                whole = {"id": "someone/tuned", "sha": commit, "siblings": files}
                self._answer(json.dumps(files if "/tree/" in self.path else whole).encode())
                return
            file = folder / self.path.rpartition("/")[2]
            if self.path.startswith("/someone/tuned/resolve/") and file.is_file():
                self._answer(file.read_bytes(), etag=file.name)
            else:
                self._answer(b"{}", status=404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, body: bytes, status: int = 200, etag: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", commit)
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            if etag:
                self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what failed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("form", ["transformers", "open_clip"])
def test_room_is_asked_for_once_all_is_downloaded(form: str, clip: Path, at_hub: AtHub) -> None:
    bundled = Path(catalog()["pictogram"].loader.removeprefix("local-dir:"))
    folder = clip if form == "transformers" else bundled
    name, asked = "hf-hub:someone/tuned", []
    with hub_with(folder) as url:
        at_hub(url)
        load(
            name, precision="fp32", backend="torch", room=lambda: asked.append(weight_files(name))
        ).close()
    # the weights, whole, and what names their version
    [[(_, weights, _), (version, *_)]] = asked
    file = "model.safetensors" if form == "transformers" else "open_clip_model.safetensors"
    assert weights == (folder / file).stat().st_size
    assert version.endswith("refs/main")


@pytest.mark.parametrize("form", ["whole", "parts of torch"])
def test_a_repository_of_the_hub_is_downloaded_once(
    form: str, clip: Path, original: Encoder, at_hub: AtHub, tmp_path: Path
) -> None:
    folder = _copy(clip, tmp_path / "repository")
    if form == "parts of torch":
        part = "pytorch_model-00001-of-00001.bin"
        tensors = load_file(folder / "model.safetensors")
        torch.save(tensors, folder / part)
        index = json.dumps({"weight_map": dict.fromkeys(tensors, part)})
        (folder / "pytorch_model.bin.index.json").write_text(index)
        (folder / "model.safetensors").unlink()
    with hub_with(folder) as url:
        for endpoint in (url, NO_HUB):  # all is here by then
            at_hub(endpoint)
            fetch("hf-hub:someone/tuned")
            encoder = load("hf-hub:someone/tuned", precision="fp32", backend="torch")
            encoder.close()
            assert encoder.info.fingerprint == original.info.fingerprint


def _in_torch(folder: Path) -> Encoder:
    """Without the seconds that compiling takes: how a checkpoint is read is the same."""
    return load(f"local-dir:{folder}", precision="fp32", backend="torch")


def _copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, dirs_exist_ok=True))
