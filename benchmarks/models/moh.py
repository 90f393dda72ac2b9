"""Time of mixture-of-head attention against the share of heads that are on, compared with softmax
attention, which has all of them on.

    python benchmarks/models/moh.py [--tokens 512 1024 2048] [--causal]

Width 256, 8 heads of 32, batch 1, one thread; gathered: heads that are off are not computed; dense:
all heads, gates afterwards, as in published code. ms of the fastest call, all forms in turn.
"""

import torch

from headwise.benchmarks.measure import fastest, parser_of, print_header, print_row, training_step
from headwise.models.attention import build_attention

WIDTH, HEADS = 256, 8
SHARES = {"100 %": (2, 6), "75 %": (2, 4), "50 %": (2, 2), "25 %": (1, 1)}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--causal", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {"softmax": build_attention("softmax", WIDTH, HEADS, causal=arguments.causal)}
    for share, (shared, active) in SHARES.items():
        for compute in ("dense", "gathered"):
            options = {
                "shared": shared,
                "active": active,
                "compute": compute,
                "causal": arguments.causal,
            }
            models[f"{share}, {compute}"] = build_attention("moh", WIDTH, HEADS, **options)
    print_header("form", *(f"{n:,} tokens: inference, training (ms)" for n in arguments.tokens))
    cells: dict[str, list[str]] = {name: [] for name in models}
    for n in arguments.tokens:
        x = torch.randn(1, n, WIDTH)
        with torch.no_grad():
            inference = fastest(
                [lambda model=model, x=x: model.eval()(x) for model in models.values()], 0.3
            )
        steps = [
            training_step(model, lambda model=model, x=x: model.train()(x))
            for model in models.values()
        ]
        training = fastest(steps, 0.3)
        for i, name in enumerate(models):
            first, second = inference[i] / inference[0], training[i] / training[0]
            cells[name].append(
                f"{1000 * inference[i]:.1f} ({first:.2f}), {1000 * training[i]:.1f} ({second:.2f})"
            )
    for name, row in cells.items():
        print_row(name, *row)
    print("In brackets: time as a share of softmax attention's.")


if __name__ == "__main__":
    main()
