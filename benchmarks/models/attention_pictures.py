"""Pictures of docs/reference/attention.md: what one patch of a real image attends to under each
mechanism, and the cost curve.

    python benchmarks/models/matrix.py            # trains the models (flowers, seed 0)
    python benchmarks/models/attention.py         # measures the curves
    python benchmarks/models/attention_pictures.py [--output docs/images/attention]

The image is scikit-learn's sample `flower.jpg` (CC BY 2.0, flickr.com/photos/vultilion/6056698931),
unseen in training. Left to right: the image with the patch in question; the attention weights of
that patch in the last layer, mean of the heads, where the mechanism has weights; the influence,
i.e. how much each input token moves the output at that patch (norm of the derivative of the last
mechanism; the colours are scaled by the other patches), which every mechanism has; time of a
training step against tokens.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.patches import Rectangle
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from headwise.benchmarks import domains
from headwise.benchmarks.measure import parser_of
from headwise.models.attention import ATTENTION
from headwise.models.attention.base import Attention
from headwise.models.layers.vit import VisionTransformer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

QUERY = 3 * 8 + 3  # the patch in question, row 3, column 3


def picture() -> Tensor:
    """The middle of the sample image, (1, 3, 64, 64) in [-1, 1]."""
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    x = (photo.width - photo.height) // 2
    square = photo.crop((x, 0, x + photo.height, photo.height))
    small = square.resize((domains.SIDE, domains.SIDE))
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def last_input(model: VisionTransformer, image: Tensor) -> tuple[Attention, Tensor, dict[str, Any]]:
    """The mechanism of the last layer and what it is given for the image."""
    mechanism = model.encoder.layers[-1].mixer
    recorded: dict[str, Any] = {}

    def record(_: nn.Module, inputs: tuple[Tensor], options: dict[str, Any]) -> None:
        extras = {key: options[key] for key in mechanism.extras if key in options}
        recorded.update(x=inputs[0].detach(), extras=extras)

    hook = mechanism.register_forward_pre_hook(record, with_kwargs=True)
    with torch.no_grad():
        model(image)
    hook.remove()
    return mechanism, recorded["x"], recorded["extras"]


def maps(name: str, folder: Path, image: Tensor) -> tuple[Tensor | None, Tensor]:
    """Weights (8, 8) of the patch, None without any, and influence (8, 8)."""
    model = domains.flower_model(name)
    model.load_state_dict(load_file(folder / f"flowers-{name}-0.safetensors"))
    mechanism, x, extras = last_input(model.eval(), image)
    weights = None
    if type(mechanism).weights is not Attention.weights:
        with torch.no_grad():
            weights = mechanism.weights(x, **extras)[0].mean(0)[QUERY].view(8, 8)
    slopes = torch.autograd.functional.jacobian(
        lambda tokens: mechanism(tokens, **extras)[0, QUERY], x
    )
    assert isinstance(slopes, Tensor)
    influence = slopes[:, 0].square().sum((0, 2)).sqrt().view(8, 8)
    return weights, influence


def draw(
    name: str, folder: Path, curves: dict[str, list[dict[str, float]]], image: Tensor, path: Path
) -> None:
    """One row of four pictures."""
    weights, influence = maps(name, folder, image)
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.7), width_ratios=(1, 1, 1, 1.5))
    shown = (image[0].permute(1, 2, 0) + 1) / 2
    axes[0].imshow(shown)
    row, column = divmod(QUERY, 8)
    axes[0].add_patch(
        Rectangle((8 * column - 0.5, 8 * row - 0.5), 8, 8, fill=False, color="red", lw=2)
    )
    axes[0].set_title("patch in question", fontsize=9)
    for ax, grid, title in ((axes[1], weights, "weights"), (axes[2], influence, "influence")):
        if grid is None:
            ax.text(0.5, 0.5, "no attention\nweights", ha="center", va="center", fontsize=9)
        else:
            others = torch.cat([grid.flatten()[:QUERY], grid.flatten()[QUERY + 1 :]])
            ax.imshow(grid.detach(), cmap="magma", vmax=max(float(others.max()), 1e-12))
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="red"))
        ax.set_title(title, fontsize=9)
    for ax in axes[:3]:
        ax.set(xticks=[], yticks=[])
    lines = {"softmax": {"color": "grey", "ls": "--"}, name: {"color": "tab:blue", "marker": "."}}
    for which, style in lines.items():
        rows = curves.get(which, [])
        axes[3].plot(
            [r["tokens"] for r in rows], [1000 * r["training"] for r in rows], label=which, **style
        )
    axes[3].set(xscale="log", yscale="log", xlabel="tokens")
    axes[3].set_title("training step, ms", fontsize=9)
    axes[3].grid(alpha=0.3)
    axes[3].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=75)
    plt.close(figure)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--matrix", type=Path, default=Path("runs/benchmarks/matrix"))
    parser.add_argument(
        "--curves", type=Path, default=Path("runs/benchmarks/attention/curves.json")
    )
    parser.add_argument("--names", nargs="+", default=list(ATTENTION))
    parser.add_argument("--output", type=Path, default=Path("docs/images/attention"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    curves, image = json.loads(arguments.curves.read_text()), picture()
    for name in arguments.names:
        draw(name, arguments.matrix, curves, image, arguments.output / f"{name}.png")
        print(arguments.output / f"{name}.png")


if __name__ == "__main__":
    main()
