"""What the 1,000 classes of ImageNet are called: open_clip's names, and WordNet's words for them.

Knows names only. A class's synset is its WordNet 3.0 offset.
"""

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from timm.data.imagenet_info import ImageNetInfo
from wordnet import WordNet

# too general to say what a picture shows: the chain of hypernyms ends below these
GENERAL = frozenset(
    """entity|physical entity|object|whole|artifact|matter|thing|abstraction|living thing|organism
|instrumentality|causal agent|unit|natural object|substance|device|implement|covering|structure
|equipment|commodity|consumer goods|chordate|placental|carnivore|vertebrate|conveyance|way|passage
|line|domestic animal|mechanism|machine|instrument|construction|foodstuff|nutriment|ware|article
|container|creation|product|attire""".replace("\n", "").split("|")
)


def imagenet_classes(wordnet: WordNet) -> list[list[tuple[str, str]]]:
    """For each class [(text, kind)], kind "name", "synonym" or "above 1", "above 2", ..."""
    info = ImageNetInfo("imagenet1k")
    classes = []
    synsets: list[str] = info.label_names()  # type: ignore[no-untyped-call]
    for synset, name in zip(synsets, IMAGENET_CLASSNAMES, strict=True):
        offset = synset.removeprefix("n")
        texts = [(name.lower(), "name")]
        texts += [(lemma, "synonym") for lemma in wordnet.lemmas(offset)]
        for step, lemmas in wordnet.above(offset):
            if GENERAL.intersection(lemmas):
                break
            texts.append((lemmas[0], f"above {step}"))
        classes.append(list({t: (t, k) for t, k in reversed(texts)}.values())[::-1])
    return classes
