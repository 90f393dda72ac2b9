"""Claim: the time of agent attention is linear in the number of tokens (arXiv 2312.08874), softmax
attention's is not.

    python benchmarks/claims/agent.py [--repeats 7]

Forward passes at 1,024 to 16,384 tokens, width 64, 4 heads, 49 agents, one thread. The exponent b
of time = a n^b is fitted to each repeat; printed are its mean and 95 % interval (Student, over
repeats), and the times.
"""

import statistics

import torch

from headwise.benchmarks.cells import student
from headwise.benchmarks.measure import fastest, growth, parser_of, print_header, print_row
from headwise.models.attention import build_attention

SIZES = (1024, 2048, 4096, 8192, 16384)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {
        "agent": build_attention("agent", 64, 4, agents=49).eval(),
        "softmax": build_attention("softmax", 64, 4).eval(),
    }
    times: dict[str, list[list[float]]] = {name: [] for name in models}
    with torch.no_grad():
        for _ in range(arguments.repeats):
            for name, model in models.items():
                inputs = [torch.randn(1, n, 64) for n in SIZES]
                times[name].append(
                    [fastest([lambda model=model, x=x: model(x)], 0.05, 2)[0] for x in inputs]
                )
    print_header("mechanism", *(f"{n:,} tokens, ms" for n in SIZES), "exponent (95 %)")
    for name, runs in times.items():
        middle = [f"{1e3 * statistics.median(seconds):.1f}" for seconds in zip(*runs)]
        power = "{:.2f} ({:.2f}–{:.2f})".format(*student([growth(SIZES, run) for run in runs]))
        print_row(name, *middle, power)


if __name__ == "__main__":
    main()
