"""Claim: in-context linear regression needs two softmax heads of opposite sign (arXiv 2503.12734).

    python benchmarks/claims/in_context.py [--tasks 20000] [--steps 1500]

One attention layer reads a prompt (x_i, y_i), i <= L, and a query x: y = sum_h m_h sum_i
softmax_i(x W_h x_i) y_i. W_h and m_h are trained at L = 40 (d = 5, noise .1 in the prompt, w ~ N(0,
I/d)) and judged on fresh tasks: mean squared error against the value without noise, with a 95 %
bootstrap interval over tasks; then at other lengths. Beside it: attention without softmax, trained
alike, as a mean over the prompt and as a sum, and the Bayes predictor (ridge), which nothing may
beat.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.attention.base import attend

D, LENGTH, NOISE = 5, 40, 0.1


def prompts(
    tasks: int, length: int, dice: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (B, L, d), y (B, L, 1), query (B, 1, d), its true value (B,)."""
    w = torch.randn(tasks, D, 1, generator=dice) / D**0.5
    x, query = (
        torch.randn(tasks, length, D, generator=dice),
        torch.randn(tasks, 1, D, generator=dice),
    )
    y = x @ w + NOISE * torch.randn(tasks, length, 1, generator=dice)
    return x, y, query, (query @ w)[:, 0, 0]


class Heads(nn.Module):
    """The layer above; kind: "softmax", or scores as weights, over L ("mean") or over 40
    ("sum").
    """

    def __init__(self, heads: int, *, kind: str = "softmax") -> None:
        super().__init__()
        self.kind = kind
        # Small heads of both signs and a little noise: what they become is left to the training.
        sign = torch.tensor([1.0, -1.0]).repeat(heads)[:heads]
        self.kq = nn.Parameter(
            0.1 * sign[:, None, None] * torch.eye(D) + 0.02 * torch.randn(heads, D, D)
        )
        self.out = nn.Parameter(sign + 0.1 * torch.randn(heads))

    def forward(self, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        turned = torch.einsum("bnd,hde->bhne", query, self.kq)
        keys = x[:, None].expand(-1, len(self.kq), -1, -1)
        values = y[:, None].expand(-1, len(self.kq), -1, -1)
        if self.kind == "softmax":
            read = attend(turned, keys, values, scale=1.0)
        else:
            read = (
                turned
                @ keys.transpose(2, 3)
                @ values
                / (x.shape[1] if self.kind == "mean" else LENGTH)
            )
        return torch.einsum("bhno,h->b", read, self.out)


def bayes(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Posterior mean of the value: ridge regression with the true noise and prior."""
    gram = x.transpose(1, 2) @ x + NOISE**2 * D * torch.eye(D)
    return (query @ torch.linalg.solve(gram, x.transpose(1, 2) @ y))[:, 0, 0]


def train(model: Heads, steps: int, seed: int) -> Heads:
    dice = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x, y, query, truth = prompts(512, LENGTH, dice)
        loss = (model(x, y, query) - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
    return model.eval()


def bootstrap(
    values: Tensor, divisor: Tensor | None = None, draws: int = 1000
) -> tuple[float, float, float]:
    """Mean, or ratio of means over the same tasks, with its 95 % interval."""
    dice = torch.Generator().manual_seed(7)
    rows = torch.randint(0, len(values), (draws, len(values)), generator=dice)
    divisor = torch.ones_like(values) if divisor is None else divisor
    means = torch.stack([values[row].mean() / divisor[row].mean() for row in rows])
    middle = values.mean() / divisor.mean()
    low, high = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    return float(middle), low, high


@torch.no_grad()
def errors(predict: Callable[[Tensor, Tensor, Tensor], Tensor], length: int, tasks: int) -> Tensor:
    x, y, query, truth = prompts(tasks, length, torch.Generator().manual_seed(1000 + length))
    parts = zip(x.split(2000), y.split(2000), query.split(2000))
    return (torch.cat([predict(*part) for part in parts]) - truth).square()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument(
        "--seeds", type=int, default=3, help="starts of each model; the best in training counts"
    )
    arguments = parser.parse_args()
    models: dict[str, Heads] = {}
    for name, heads, kind in (
        ("1 head", 1, "softmax"),
        ("2 heads", 2, "softmax"),
        ("4 heads", 4, "softmax"),
        ("1 head, mean instead of softmax", 1, "mean"),
        ("1 head, sum instead of softmax", 1, "sum"),
    ):
        starts = []
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            starts.append(train(Heads(heads, kind=kind), arguments.steps, seed))
        models[name] = min(starts, key=lambda model: float(errors(model, LENGTH, 5000).mean()))
    lengths = (10, LENGTH, 400)
    print_header(
        "model", *(f"L = {length}" for length in lengths), "sum m / sum abs m", "off/on diagonal"
    )
    at_training: dict[str, Tensor] = {}
    for name, predict in [*models.items(), ("Bayes", bayes)]:
        cells = [name]
        for length in lengths:
            error = errors(predict, length, arguments.tasks)
            if length == LENGTH:
                at_training[name] = error
            cells.append("{:.4f} ({:.4f}–{:.4f})".format(*bootstrap(error)))
        if isinstance(predict, Heads):
            m, kq = predict.out.detach(), predict.kq.detach()
            on = kq.diagonal(dim1=1, dim2=2).abs().mean()
            off = (kq * (1 - torch.eye(D))).abs().sum() / (len(kq) * D * (D - 1))
            cells += [f"{float(m.sum().abs() / m.abs().sum()):.3f}", f"{float(off / on):.3f}"]
        else:
            cells += ["", ""]
        print_row(*cells)
    ratio = bootstrap(at_training["1 head"], at_training["2 heads"])
    print("error of one head / error of two: {:.2f} (95 % {:.2f}–{:.2f})".format(*ratio))
    noisy = [at_training[name] + NOISE**2 for name in ("1 head", "2 heads")]
    print(
        "the same with noise in the value that is asked for: {:.2f} ({:.2f}–{:.2f})".format(
            *bootstrap(noisy[0], noisy[1])
        )
    )


if __name__ == "__main__":
    main()
