"""Image processor and tokenizer of a checkpoint of transformers, in open_clip's words.

Needs transformers for tokenizers other than CLIP's alone.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from open_clip.tokenizer import SimpleTokenizer

from models.huggingface_config import LEGACY_EOS, Configuration, Unmappable, as_object, read

INTERPOLATIONS: Final = {2: "bilinear", 3: "bicubic"}

# what an image processor has to do, and what those of other models do besides
STEPS: Final = {
    "do_resize": True,
    "do_rescale": True,
    "do_pad": False,
    "crop_pct": False,
    "do_flip_channel_order": False,
    "include_top": False,
}

# what transformers calls CLIP's special tokens, and their ids
CLIPS_SPECIAL: Final = {"<|startoftext|>": 49_406, "<|endoftext|>": 49_407}
CLIPS_MARKS: Final = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
# what is behind a prompt's end is not seen by it, and no byte is unknown
UNWRITTEN: Final = ("pad_token", "unk_token")

COPY_TOKENIZER: Final = "copy the tokenizer's files from the model that this one was made from"
NO_TOKENIZER: Final = f"there is no tokenizer.json: {COPY_TOKENIZER}"

MASKED: Final = (
    "by tokenizer_config.json's model_input_names, or without them, transformers hides the padding "
    "from the text tower, which cannot be done here; if the model was trained without that, as "
    'Google\'s are, write there "model_input_names": ["input_ids"]'
)


def preprocessing(folder: Path, config: Configuration) -> dict[str, Any]:
    """The settings of the image processor, in open_clip's words."""
    options = _image_processor(folder)
    edge = config.vision["image_size"]
    for name, needed in STEPS.items():
        if bool(options.get(name, needed)) is not needed:
            raise Unmappable(f"the image processor's {name} is {options[name]}")
    factor = options.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise Unmappable(f"the image processor's rescale_factor is {factor}, not 1 / 255")
    resample = options.get("resample", 2 if config.kind == "siglip2" else 3)
    if resample not in tuple(INTERPOLATIONS):
        raise Unmappable(f"the image processor's resample is {resample}, not 2 or 3")
    patches, most = config.vision.get("num_patches"), options.get("max_num_patches")
    if config.kind == "siglip2" and most not in (None, patches):
        raise Unmappable(f"the image processor's max_num_patches is {most}, num_patches {patches}")
    normalizes = options.get("do_normalize", True)
    return {
        "size": (edge, edge),
        "mode": "RGB",
        "mean": _channels(options, "image_mean") if normalizes else (0.0, 0.0, 0.0),
        "std": _channels(options, "image_std") if normalizes else (1.0, 1.0, 1.0),
        "interpolation": INTERPOLATIONS[resample],
        "resize_mode": _resize_mode(options, edge),
        "fill_color": 0,
    }


def _channels(options: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Three numbers, or one for all three channels."""
    value = options.get(name)
    if value is None:
        raise Unmappable(f"the image processor has no {name}")
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or any(type(number) not in (int, float) for number in numbers):
        raise Unmappable(f"the image processor's {name} is {value!r}, not one or three numbers")
    red, green, blue = map(float, numbers)
    return red, green, blue


def _image_processor(folder: Path) -> dict[str, Any]:
    old, new = folder / "preprocessor_config.json", folder / "processor_config.json"
    options = read(new).get("image_processor")
    if options:
        return as_object(options, f"{new.name}: image_processor")
    if old.is_file():
        return read(old)
    raise Unmappable(
        "there is no preprocessor_config.json: copy it from the model that this one was made from"
    )


def _resize_mode(options: Mapping[str, Any], edge: int) -> str:
    size, crop = _extent(options.get("size")), _extent(options.get("crop_size"))
    crops = options.get("do_center_crop", False)
    if isinstance(options.get("size"), int) and options.get("default_to_square"):
        size = (size, size)
    if size is None and "max_num_patches" in options:
        return "squash"  # of any shape in its own model; here, as many patches in a square
    if isinstance(size, int) and crops and size == edge and crop in (edge, (edge, edge)):
        return "shortest-floor"
    if size == (edge, edge) and (not crops or crop in (edge, (edge, edge))):
        return "squash"
    cropped = f" and crop_size {options.get('crop_size')}" if crops else ""
    raise Unmappable(
        f"the image processor's size {options.get('size')}{cropped} does not give the tower's "
        f"{edge} x {edge} pixels"
    )


def _extent(size: Any) -> int | tuple[Any, Any] | None:
    """A size in any of its spellings: (height, width), or the length of the shorter edge."""
    if isinstance(size, int):
        return size
    if isinstance(size, dict) and size.get("height") is not None:
        return size["height"], size.get("width")
    if isinstance(size, dict) and isinstance(size.get("shortest_edge"), int):
        # with a bound of the longer edge the picture would keep its shape and not fill the square
        return None if size.get("longest_edge") else int(size["shortest_edge"])
    return None


class FolderTokenizer:
    """A tokenizer of transformers, used as its own model uses it."""

    def __init__(self, folder: Path, *, pads: bool) -> None:
        """`pads`: the text tower sees the padding, so it counts which it is and where."""
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._pads = pads

    def __call__(self, texts: list[str], context_length: int) -> torch.Tensor:
        """(N, context_length) int64 ids."""
        padding = "max_length" if self._pads else False
        encoded = self.tokenizer(
            texts, padding=padding, max_length=context_length, truncation=True
        )["input_ids"]
        ids = torch.zeros((len(texts), context_length), dtype=torch.int64)
        for row, own in zip(ids, encoded, strict=True):
            row[: len(own)] = torch.tensor(own)
        return ids


def tokenizer_of(folder: Path, config: Configuration) -> SimpleTokenizer | FolderTokenizer:
    """The tokenizer whose files lie in the folder. Raises Unmappable, ImportError."""
    length = config.text["max_position_embeddings"]
    names = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
    if not any((folder / name).is_file() for name in names):
        raise Unmappable(NO_TOKENIZER)
    if config.kind == "clip" and _is_clips_own(folder):
        tokenizer: SimpleTokenizer | FolderTokenizer = SimpleTokenizer(context_length=length)
        ids = tokenizer(["a"], context_length=length)
    else:
        tokenizer = FolderTokenizer(folder, pads=config.kind != "clip")
        ids = tokenizer(["a"], length)
        if config.kind != "clip" and "attention_mask" in tokenizer.tokenizer.model_input_names:
            raise Unmappable(MASKED)
    highest = int(ids.max())
    if config.kind == "clip":
        # a prompt may hold any of those that were added
        highest = max([highest, *_added_tokens(folder).values()])
    if highest >= config.text["vocab_size"]:
        raise Unmappable(
            f"the tokenizer has ids up to {highest}, text_config.vocab_size is "
            f"{config.text['vocab_size']}"
        )
    eos = config.text.get("eos_token_id")
    if config.kind == "clip" and eos != LEGACY_EOS and eos not in ids:
        # the first id would be pooled instead, whatever the prompt says
        raise Unmappable(f"text_config.eos_token_id is {eos}, which the tokenizer never writes")
    return tokenizer


def _is_clips_own(folder: Path) -> bool:
    """Whether all tokens are those of CLIP, for which open_clip brings a tokenizer."""
    named = read(folder / "tokenizer_config.json").get("tokenizer_class") or "CLIPTokenizer"
    if named not in ("CLIPTokenizer", "CLIPTokenizerFast"):
        return False  # the case of letters may count, and the marks may be others
    clip = SimpleTokenizer()
    own = {place: piece for piece, place in CLIPS_SPECIAL.items()}
    expected = {own.get(place, piece): place for piece, place in clip.encoder.items()}
    return (
        _pieces_and_merges(folder) == (expected, list(clip.bpe_ranks))
        and all(
            CLIPS_MARKS.get(use, mark) == mark and (mark in CLIPS_SPECIAL or use in UNWRITTEN)
            for use, mark in _marks(folder)
        )
        and _added_tokens(folder).items() <= CLIPS_SPECIAL.items()
    )


def _pieces_and_merges(folder: Path) -> tuple[Any, list[tuple[str, ...]]]:
    """Each piece's id and the merges in their order, from the file that transformers reads."""
    if (folder / "tokenizer.json").is_file():
        model = read(folder / "tokenizer.json").get("model") or {}
        pairs = model.get("merges") or []
        return model.get("vocab"), [tuple(p.split(" ") if isinstance(p, str) else p) for p in pairs]
    merges = folder / "merges.txt"
    if not merges.is_file():
        raise Unmappable(f"there is neither tokenizer.json nor {merges.name}: {COPY_TOKENIZER}")
    lines = merges.read_text(encoding="utf-8").strip().split("\n")
    pairs = [line for line in lines if not line.startswith("#version")]
    return read(folder / "vocab.json"), [tuple(pair.split()) for pair in pairs]


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    """What each token with a meaning of its own is for, and its text."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for use, value in read(folder / name).items():
            if not use.endswith(("_token", "special_tokens")):
                continue
            several = isinstance(value, dict) and "content" not in value
            marks = value.values() if several else value if isinstance(value, list) else [value]
            for mark in (each["content"] if isinstance(each, dict) else each for each in marks):
                if isinstance(mark, str):  # and not the answer to add_bos_token
                    yield use, mark


def _added_tokens(folder: Path) -> dict[str, int]:
    """Ids of the tokens that are no part of the vocabulary's table, in any of their spellings."""
    added = read(folder / "tokenizer.json").get("added_tokens") or ()
    settings = read(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    return {
        **{token["content"]: token["id"] for token in added},
        **{token["content"]: int(place) for place, token in settings.items()},
        **read(folder / "added_tokens.json"),
    }
