"""Read-outs of attention without its matrix, compared with the matrix and its reduction, in one run
on this machine.

    python benchmarks/ops/attention_stats.py [--seconds 0.5]

The other form is softmax(q k^T / sqrt(d)) as one tensor (batch 1, 4 heads, width 32) and the
read-out as one would write it in PyTorch. Both must agree. Measured as `ratios.py` says. "and
gradient" adds the backward pass towards queries, keys and values. Rollout is of 4 layers; its other
form multiplies a row with each matrix (faster than the usual product of matrices) and holds one at
a time.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size
from headwise.kernels.attention_stats import attention_stats, rollout_row
from headwise.models.attention.diversification import diversification_loss

HEADS, WIDTH, LAYERS = 4, 32, 4
# Read-outs that `make bench` takes at 4,096 tokens, too.
LONG = ("entropy", "column_mass", "all")
Read = Callable[[Tensor, Tensor, Tensor], list[Tensor]]


def weights(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT * WIDTH**-0.5).softmax(-1)


def chosen(key: Tensor) -> Tensor:
    """The set of keys of the key mass: the first four."""
    return (torch.arange(key.shape[2]) < 4)[None]


def ours(name: str) -> Read:
    """The read-out without the matrix."""

    def read(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        rows = torch.arange(0, query.shape[2], query.shape[2] // 16)
        if name == "all":
            want = ("lse", "entropy", "column_mass", "key_mass")
            stats = attention_stats(query, key, value, want=want, keys=chosen(key))
            return [getattr(stats, field) for field in ("output", *want)]
        if name == "output, entropy":
            stats = attention_stats(query, key, value, want=("entropy",))
            return [getattr(stats, field) for field in ("output", "entropy")]
        stats = attention_stats(query, key, want=(name,), keys=chosen(key), rows=rows)
        return [getattr(stats, "top_values" if name == "top" else name)]

    return read


def theirs(name: str) -> Read:
    """The read-out by the matrix."""

    def read(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        if name == "lse":
            return [(query @ key.mT * WIDTH**-0.5).logsumexp(-1)]
        p = weights(query, key)
        rows = torch.arange(0, query.shape[2], query.shape[2] // 16)
        make = {
            "output": lambda: p @ value,
            "lse": lambda: (query @ key.mT * WIDTH**-0.5).logsumexp(-1),
            "entropy": lambda: -(p * p.clamp_min(1e-30).log()).sum(-1),
            "column_mass": lambda: p.sum(2),
            "key_mass": lambda: p[..., :4].sum(-1),
            "top": lambda: p.topk(8, -1)[0],
            "class_row": lambda: p[:, :, 0].clone(),
            "mean_rows": lambda: p[:, :, rows].mean(1),
        }
        read_outs = {
            "all": ("output", "lse", "entropy", "column_mass", "key_mass"),
            "output, entropy": ("output", "entropy"),
        }
        return [make[field]() for field in read_outs.get(name, (name,))]

    return read


def our_rollout(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    return [rollout_row([(query, key)] * LAYERS)]


def their_rollout(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    row = torch.eye(1, query.shape[2])
    for _ in range(LAYERS):
        row = 0.5 * (row[:, None] @ weights(query, key).mean(1))[:, 0] + 0.5 * row
    return [row]


def our_loss(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    return [diversification_loss(query, key)]


def their_loss(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    maps = weights(query, key).mean(1)
    mean = maps.mean(1, keepdim=True)
    limit = 2.0 / key.shape[2]
    maps, mean = maps * (maps > limit), mean * (mean > limit)
    return [torch.nn.functional.cosine_similarity(maps, mean, -1).mean()]


def with_gradient(read: Read) -> Read:
    def both(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        tensors = [t.detach().requires_grad_() for t in (query, key, value)]
        out = read(tensors[0], tensors[1], tensors[2])
        total = torch.stack([t.square().sum() for t in out]).sum()
        back = torch.autograd.grad(total, tensors, allow_unused=True)
        return [t.detach() for t in out] + [t for t in back if t is not None]

    return both


NAMES = (
    "lse",
    "entropy",
    "column_mass",
    "key_mass",
    "top",
    "class_row",
    "mean_rows",
    "output, entropy",
    "all",
)
FORMS: dict[str, tuple[Read, Read]] = {name: (ours(name), theirs(name)) for name in NAMES}
FORMS["rollout"] = (our_rollout, their_rollout)
for gradient in ("entropy", "column_mass", "output, entropy"):
    FORMS[f"{gradient}, and gradient"] = (
        with_gradient(ours(gradient)),
        with_gradient(theirs(gradient)),
    )
FORMS["diversification loss, and gradient"] = (with_gradient(our_loss), with_gradient(their_loss))


def inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, HEADS, tokens, WIDTH) for _ in range(3))
    return 2 * query, key, value


def call(read: Read, name: str, tensors: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    with torch.set_grad_enabled("gradient" in name):
        return read(*tensors)


def check(name: str, tokens: int = 256) -> None:
    """Both forms agree, gradients included."""
    actual, expected = (call(read, name, inputs(tokens)) for read in FORMS[name])
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * max(1.0, float(b.abs().max())))


def calls(name: str, tokens: int) -> list[Callable[[], list[Tensor]]]:
    """Both forms of a read-out on the same tensors."""
    tensors = inputs(tokens)
    return [partial(call, read, name, tensors) for read in FORMS[name]]


def cases(size: Size) -> Iterator[Case]:
    """Both forms of each read-out, checked."""
    for name in FORMS:
        check(name)
        long = [4096] if size == "full" or name in LONG else []
        for tokens in [64] if size == "tiny" else [1024, *long]:
            ours, theirs = calls(name, tokens)
            yield Case(f"{name}, {tokens:,} tokens", ours, {"the matrix": theirs})


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/attention_stats"])
