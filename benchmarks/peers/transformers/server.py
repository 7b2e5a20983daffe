"""transformers' zero-shot-image-classification pipeline behind FastAPI.

Started by the harness with MODEL (a CLIPModel folder), DTYPE (by default the checkpoint's float32)
and HANDLER (`async`: inline on the event loop, `def`: in a thread of FastAPI's pool).
"""

import io
import os
from typing import Annotated, Any

from fastapi import FastAPI, File, Form
from PIL import Image
from transformers import pipeline

classifier = pipeline(
    "zero-shot-image-classification",
    model=os.environ["MODEL"],
    device="cpu",
    dtype=os.environ.get("DTYPE", "float32"),
)
app = FastAPI()


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


def answer(data: bytes, labels: list[str]) -> dict[str, Any]:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    predictions = classifier(
        picture, candidate_labels=labels, hypothesis_template="a photo of a {}."
    )
    return {
        "predictions": [
            {"label": prediction["label"], "score": prediction["score"]}
            for prediction in predictions
        ]
    }


def threaded(image: Annotated[bytes, File()], labels: Annotated[str, Form()]) -> dict[str, Any]:
    return answer(image, labels.split(","))


async def inline(image: Annotated[bytes, File()], labels: Annotated[str, Form()]) -> dict[str, Any]:
    return answer(image, labels.split(","))


app.post("/classify")(threaded if os.environ.get("HANDLER") == "def" else inline)
