"""The server that tutorials show: decode, both towers and the answer within the handler.

Started by the harness with MODEL (an open_clip folder), TEMPLATES (1 or 80) and HANDLER (`async`:
inline on the event loop, `def`: in a thread of FastAPI's pool).
"""

import io
import os
from typing import Annotated, Any

import open_clip
import torch
from fastapi import FastAPI, File, Form
from PIL import Image

MODEL = f"local-dir:{os.environ['MODEL']}"
TEMPLATES = (
    list(open_clip.OPENAI_IMAGENET_TEMPLATES)
    if os.environ.get("TEMPLATES") == "80"
    else [lambda label: f"a photo of a {label}."]
)

model, _, preprocess = open_clip.create_model_and_transforms(MODEL)
model.eval()
tokenizer = open_clip.get_tokenizer(MODEL)
app = FastAPI()


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


@torch.no_grad()
def answer(data: bytes, labels: list[str]) -> dict[str, Any]:
    picture = preprocess(Image.open(io.BytesIO(data)).convert("RGB")).unsqueeze(0)
    vector = model.encode_image(picture, normalize=True)
    rows = []
    for label in labels:
        texts = tokenizer([template(label) for template in TEMPLATES])
        mean = model.encode_text(texts, normalize=True).mean(dim=0)
        rows.append(mean / mean.norm())
    scores = (model.logit_scale.exp() * vector @ torch.stack(rows).T).softmax(dim=-1)[0].tolist()
    best = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
    return {"predictions": [{"label": label, "score": score} for label, score in best]}


def threaded(image: Annotated[bytes, File()], labels: Annotated[str, Form()]) -> dict[str, Any]:
    return answer(image, labels.split(","))


async def inline(image: Annotated[bytes, File()], labels: Annotated[str, Form()]) -> dict[str, Any]:
    return answer(image, labels.split(","))


app.post("/classify")(threaded if os.environ.get("HANDLER") == "def" else inline)
