"""Put the backbone, the trained head and the text tower together into the file that is committed.

The head's weights, and those of the backbone's last stage, are a mean of the compiled and the
trained ones (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903). Knows the work folder's files.
"""

import argparse
import os
from pathlib import Path

import torch
from backbone import classifier, last_stage
from sources import fetch, single_source
from towers import build, export


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = os.environ.get("WORK", str(Path.home() / ".cache" / "openvocab-everyday"))
    parser.add_argument("--work", type=Path, default=Path(home))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--trained", type=float, default=0.85, help="share of the trained weights")
    parser.add_argument("--scale", type=float, default=25.0, help="of the scores: see LOG.md")
    args = parser.parse_args()
    compiled = torch.load(args.work / "compiled.pt", weights_only=True)
    trained = torch.load(args.work / "aligned.pt", weights_only=True)
    rows = {n: torch.lerp(compiled[n], trained[n], args.trained) for n in compiled}
    model = build().eval()
    model.load_state_dict(torch.load(args.work / "text.pt", weights_only=True), strict=False)
    net = classifier(fetch(single_source("backbone"), args.work / "downloads"))
    trunk = {n: w for n, w in net.state_dict().items() if not n.startswith("classifier")}
    model.visual.trunk.load_state_dict(trunk)
    with torch.no_grad():
        for name, p in model.visual.head.mlp.named_parameters():
            p.copy_(rows[f"head.{name}"])
        for name, p in last_stage(model.visual.trunk).named_parameters():
            p.copy_(rows[f"stage.{name}"])
        scale = torch.tensor(args.scale).log()
        model.logit_scale.copy_(scale)
    weights = export(model.state_dict(), args.out)
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB, scale {float(scale.exp()):.1f}")


if __name__ == "__main__":
    main()
