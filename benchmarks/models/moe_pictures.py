"""The picture of docs/reference/moe.md: four routers on the same tokens.

    python benchmarks/models/moe_pictures.py [--output docs/images/moe-routers.png]

Generated: 240 tokens of width 16 in six clusters, drawn by their two principal components; four
experts, one active, the same router weights for all, one draw of them. Colour: the expert of a
token; ring: another one under noise (a tenth of the deviation); cross: dropped. Below: which share
of the tokens each expert serves. Printed: the mean share of changes over 40 draws of tokens and
router, by token and by similarity, for eight experts, two active.
"""

from pathlib import Path

import matplotlib
import torch

from headwise.benchmarks.measure import parser_of
from headwise.models.moe.router import Router
from headwise.models.moe.watch import flip_rate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")
ROUTERS = {
    "by token": {},
    'mixing="similarity"': {"mixing": "similarity"},
    "capacity=1": {"capacity": 1.0},
    "bias_rate=.002, no loss": {"bias_rate": 0.002},
}


def changed_share(temperature: float | None) -> float:
    """Mean share of tokens that change their experts under noise, 40 draws; temperature 0: by
    token.
    """
    shares = []
    for seed in range(40):
        torch.manual_seed(seed)
        x = (2 * torch.randn(6, 1, 16) + 0.7 * torch.randn(6, 40, 16)).view(1, 240, 16)
        noisy = x + 0.1 * torch.randn_like(x)
        gate = torch.randn(8, 16)
        similar = {} if temperature == 0 else {"mixing": "similarity", "temperature": temperature}
        router = Router(16, 8, 2, **similar)
        with torch.no_grad():
            router.eval().gate.weight.copy_(gate)
            shares.append(flip_rate(router(x), router(noisy)))
    return sum(shares) / len(shares)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images/moe-routers.png"))
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    centres = 2 * torch.randn(6, 16)
    x = (centres[:, None] + 0.7 * torch.randn(6, 40, 16)).view(1, 240, 16)
    noisy = x + 0.1 * x.std() * torch.randn_like(x)
    plane_of = torch.pca_lowrank(x[0], 2)[2]
    gate = 0.3 * torch.randn(4, 16)
    figure, axes = plt.subplots(
        2, 4, figsize=(13, 4.6), height_ratios=(4, 1), constrained_layout=True
    )
    for (name, options), (plane, bars) in zip(ROUTERS.items(), axes.T):
        router = Router(16, 4, 1, normalise=False, **options)
        with torch.no_grad():
            router.gate.weight.copy_(gate)
            for _ in range(400 if router.bias_rate else 0):
                router.train()(x)
            routing, noisy_routing = router.eval()(x), router(noisy)
        first = routing.experts[:, 0]
        changed = (routing.experts.sort(1).values != noisy_routing.experts.sort(1).values).any(1)
        points = (x[0] @ plane_of).numpy()
        for e, colour in enumerate(COLOURS):
            plane.scatter(*points[first == e].T, s=14, color=colour, linewidths=0)
        dropped = first == 4
        plane.scatter(*points[dropped].T, s=22, marker="x", color="#888888", linewidths=1)
        if not router.capacity:
            plane.scatter(
                *points[changed].T, s=46, facecolors="none", edgecolors="black", linewidths=0.8
            )
            name += f"\n{flip_rate(routing, noisy_routing):.0%} change under noise"
        else:
            name += f"\n{float(dropped.double().mean()):.0%} find no room"
        plane.set(title=name, xticks=[], yticks=[], aspect="equal")
        share = torch.bincount(routing.experts.flatten(), minlength=5)[:4] / routing.experts.numel()
        bars.bar(range(4), share, color=COLOURS)
        bars.axhline(0.25, color="black", linewidth=0.6, linestyle=":")
        bars.set(ylim=(0, 0.6), xticks=[], yticks=[0, 0.25, 0.5])
    axes[1, 0].set_ylabel("load")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=110)
    print(arguments.output)
    for name, temperature in (
        ("by token", 0),
        ("similarity, sqrt(D)", None),
        ("similarity, temperature 1", 1),
    ):
        print(f"{name}: {changed_share(temperature):.1%} change")


if __name__ == "__main__":
    main()
