"""Make everything that training and measuring read, in one work folder.

The drawings, captions, hold-out and Twemoji of `pictogram`, drawn larger; everyday things in three
dimensions from several sides; photographs with labels; the names of ImageNet's classes; the texts
for the text tower; what the sentence encoder says of them. Knows no model but the encoder.
"""

import json
from pathlib import Path

import numpy as np
from data import add_wordnet, arguments, gathered, write_held_out, write_training
from holdout import HoldOut
from imagenet_classes import imagenet_classes
from labelled import labelled, write_labelled
from objects import objects
from precision import fastest
from sources import fetch, single_source
from teacher import Teacher, encode_all
from vocabulary import token_strings, whole_words
from wordnet import WordNet

SIZE = 224  # pixels of a drawing; warped to the model's 260 in training


def write_texts(captions: set[str], holdout: HoldOut, wordnet: WordNet, work: Path) -> None:
    """What the text tower reads. The names held out of the drawings are words like any other."""
    classes = imagenet_classes(wordnet)
    groups = {
        "captions": sorted(captions | holdout.names),
        "imagenet": sorted({text for texts in classes for text, _ in texts}),
        "nouns": [lemma for lemma, _ in wordnet.common()],
        "tokens": whole_words(),
    }
    (work / "texts.json").write_text(json.dumps(groups))
    (work / "imagenet.json").write_text(json.dumps(classes))
    print({k: len(v) for k, v in groups.items()})


def write_teacher(work: Path) -> None:
    """The encoder's rows in texts.json's order, bare; then captions and classes once more in a
    photograph's sentence; and of every token alone. bfloat16 halves the time where the processor
    has it, and what it loses is far below what the text tower can learn."""
    teacher = Teacher(fetch(single_source("teacher"), work / "downloads"), fastest())
    groups = json.loads((work / "texts.json").read_text())
    pictured = groups["captions"] + groups["imagenet"]
    bare = encode_all(teacher, [text for group in groups.values() for text in group])
    photo = encode_all(teacher, [f"a photo of a {text}." for text in pictured])
    np.save(work / "teacher_tokens.npy", encode_all(teacher, token_strings()))
    np.save(work / "teacher.npy", np.concatenate([bare, photo]))


def main() -> None:
    args = arguments(__doc__, "everyday")
    made = gathered(args.work)
    pictures = [*made.pictures, *objects(made.concepts, args.work, args.jobs)]
    photographs = labelled(made.concepts, made.holdout, args.work)
    write_labelled(photographs, args.work)
    names: dict[str, set[str]] = {}
    for photograph in photographs:
        names.setdefault(photograph.label.key, set()).update(photograph.label.names)
    add_wordnet(made.concepts, {p.key for p in pictures} | names.keys(), made.wordnet)
    captions = write_training(
        pictures, made.concepts, made.holdout, args.work, SIZE, args.jobs, names
    )
    write_texts(captions, made.holdout, made.wordnet, args.work)
    write_held_out(made.twemoji, made.holdout, args.work)
    write_teacher(args.work)


if __name__ == "__main__":
    main()
