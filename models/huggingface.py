"""Checkpoints as Hugging Face's transformers saves them, mapped onto open_clip's modules.

Everything after loading is one path: what comes out are open_clip's own towers.
"""

from pathlib import Path
from typing import Any, Final

from open_clip import set_model_preprocess_cfg

from models.huggingface_config import Unmappable, configuration, read
from models.huggingface_processors import preprocessing, tokenizer_of
from models.huggingface_weights import model_of, read_weights

CONFIG: Final = "config.json"

# beside the weights, what PEFT trained to be added to them
ADAPTER: Final = "adapter_config.json"

# what is needed of a repository of the hub
FILES: Final = ("*.json", "*.txt", "*.model")
WEIGHT_FILES: Final = ("model*.safetensors", "pytorch_model*.bin")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint in this form, and not in open_clip's."""
    return (folder / CONFIG).is_file() and not (folder / "open_clip_config.json").is_file()


def load_folder(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A folder with config.json -> the model, its tokenizer, and all that the weights do not show.

    Raises:
        Unmappable: something in it has no equal in open_clip's modules.
        ImportError: the tokenizer needs the extra `hf`.
        OSError, ValueError, KeyError: a file is missing or damaged.
    """
    if not (folder / CONFIG).is_file():
        raise Unmappable(f"there is no {CONFIG}")
    if (folder / ADAPTER).is_file():
        raise Unmappable(
            f"{ADAPTER}: adapters are not applied; merge it into the weights and save those alone"
        )
    config = configuration(read(folder / CONFIG))
    preprocess = preprocessing(folder, config)
    model = model_of(config, read_weights(folder))
    set_model_preprocess_cfg(model, preprocess)
    tokenizer = tokenizer_of(folder, config)
    architecture = {
        "kind": config.kind, "text": dict(config.text), "vision": dict(config.vision),
    }  # fmt: skip
    return model, tokenizer, architecture
