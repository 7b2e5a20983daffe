"""Put the backbone, the finished head and the text tower together into the file that is committed.

Knows the work folder's files.
"""

from pathlib import Path

import torch
from backbone import classifier, last_stages
from head import finish
from sources import fetch, single_source
from text_tower import finished_texts
from towers import build, export
from workfolder import work_parser


def main() -> None:
    parser = work_parser(__doc__, "everyday")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--scale", type=float, default=22.0, help="of the scores: see LOG.md")
    args = parser.parse_args()
    model = build().eval()
    model.load_state_dict(finished_texts(args.work), strict=False)
    net = classifier(fetch(single_source("backbone"), args.work / "downloads"))
    trunk = {n: w for n, w in net.state_dict().items() if not n.startswith("classifier")}
    model.visual.trunk.load_state_dict(trunk)
    finish(args.work, model.visual.head.mlp, last_stages(model.visual.trunk))
    scale = torch.tensor(args.scale).log()
    with torch.no_grad():
        model.logit_scale.copy_(scale)
    weights = export(model.state_dict(), args.out)
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB, scale {float(scale.exp()):.1f}")


if __name__ == "__main__":
    main()
