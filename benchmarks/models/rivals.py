"""Our mechanisms compared with the best public forms that run on a CPU.

    python benchmarks/models/rivals.py [--seconds 0.5]

Each pair has the same width, heads and inputs, batch 2, one thread: x-transformers, timm, PyTorch's
module, flash-linear-attention's plain forms and packages of single papers, as far as they are
installed (`pip install 'headwise[benchmark]'`). Not every pair computes the same function to the
bit (projections, gates and norms differ by library); parity, where it exists, is tested in
tests/models/attention. Measured as `ratios.py` says.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, LeftOut, Size, training_step
from headwise.models.attention import build_attention

WIDTH, HEADS = 64, 4


class Called(nn.Module):
    """A module called with fixed arguments, first output only."""

    def __init__(self, module: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.module, x)


class Projected(nn.Module):
    """A function of queries, keys and values with the projections that every mechanism has."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.out, self.function = (
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
            function,
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind()
        return self.out(self.function(q, k, v).transpose(1, 2).flatten(2))


def ours(name: str, **options) -> nn.Module:
    module = build_attention(name, WIDTH, options.pop("heads", HEADS), **options)
    if "size" in module.extras:
        return Called(module, lambda m, x: m(x, size=(int(x.shape[1] ** 0.5),) * 2))
    return module


def image(x: Tensor) -> Tensor:
    return x.transpose(1, 2).unflatten(2, (int(x.shape[1] ** 0.5),) * 2)


def pairs() -> Iterator[tuple[str, str, Callable[[], nn.Module], Callable[[], nn.Module]]]:
    """(our name, rival, maker of ours, maker of theirs); a maker raises ImportError where a package
    is missing.
    """

    def module() -> nn.Module:
        theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        return Called(theirs, lambda m, x: m(x, x, x, need_weights=False)[0])

    def x_transformers() -> nn.Module:
        from x_transformers.x_transformers import Attention

        return Called(
            Attention(WIDTH, dim_head=WIDTH // HEADS, heads=HEADS, flash=True), lambda m, x: m(x)
        )

    def timm() -> nn.Module:
        from timm.layers.attention import Attention

        return Attention(WIDTH, HEADS, qkv_bias=True)

    def timm_differential() -> nn.Module:
        from timm.layers.diff_attention import DiffAttention

        return DiffAttention(WIDTH, HEADS)

    def timm_coordinate() -> nn.Module:
        from timm.layers.coord_attn import CoordAttn

        return Called(
            CoordAttn(WIDTH, rd_channels=8, bias=True),
            lambda m, x: m(image(x)).flatten(2).transpose(1, 2),
        )

    def agent() -> nn.Module:
        from agent_attention_pytorch import AgentSelfAttention

        theirs = AgentSelfAttention(
            WIDTH,
            num_agent_tokens=16,
            dim_head=WIDTH // HEADS,
            heads=HEADS,
            talking_heads=False,
            gate=False,
        )
        return theirs

    def isab() -> nn.Module:
        from isab_pytorch import ISAB

        return Called(ISAB(dim=WIDTH, heads=HEADS, num_latents=16), lambda m, x: m(x)[0])

    def gaam() -> nn.Module:
        from gaussian_adaptive_attention import MultiHeadGaussianAdaptiveAttention

        return MultiHeadGaussianAdaptiveAttention(2, HEADS, 4)

    def taylor() -> nn.Module:
        from taylor_series_linear_attention import TaylorSeriesLinearAttn

        return Called(
            TaylorSeriesLinearAttn(WIDTH, dim_head=WIDTH // HEADS, heads=HEADS), lambda m, x: m(x)
        )

    def based(chunk: bool) -> nn.Module:
        from fla.ops.based.naive import naive_chunk_based, naive_parallel_based

        return Projected(naive_chunk_based if chunk else naive_parallel_based)

    yield "softmax", "torch.nn.MultiheadAttention", lambda: ours("softmax"), module
    yield "softmax", "x-transformers, flash", lambda: ours("softmax"), x_transformers
    yield "softmax", "timm Attention, fused", lambda: ours("softmax"), timm
    yield (
        "differential",
        "timm DiffAttention",
        lambda: ours("differential", noise_heads=HEADS),
        timm_differential,
    )
    yield "coordinate", "timm CoordAttn", lambda: ours("coordinate"), timm_coordinate
    yield (
        "agent-learned",
        "agent-attention-pytorch",
        lambda: ours("agent-learned", agents=16),
        agent,
    )
    yield "induced", "isab-pytorch", lambda: ours("induced", queries=16), isab
    yield (
        "gaussian",
        "gaussian-adaptive-attention",
        lambda: ours("gaussian", mode="product", axis="features", gain=False),
        gaam,
    )
    yield "taylor", "taylor-series-linear-attention", lambda: ours("taylor"), taylor
    yield (
        "taylor, causal",
        "flash-linear-attention, naive parallel",
        lambda: ours("taylor", causal=True),
        lambda: based(False),
    )
    yield (
        "taylor, causal",
        "flash-linear-attention, naive chunk",
        lambda: ours("taylor", causal=True),
        lambda: based(True),
    )


def cases(size: Size) -> Iterator[Case | LeftOut]:
    """Inference and training step of each pair."""
    sizes = {"tiny": (16,), "short": (1024,), "full": (256, 1024, 4096)}[size]
    for name, rival, mine, theirs in pairs():
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                forms = [mine(), theirs()]
            except ImportError as missing:
                yield LeftOut(f"{name} beside {rival}", f"{missing.name} is not installed")
                continue
        for n in sizes:
            x = torch.randn(2, n, WIDTH)
            calls = [torch.no_grad()(partial(form.eval(), x)) for form in forms]
            case = f"{name}, {n:,} tokens"
            yield Case(f"{case}, inference", calls[0], {rival: calls[1]}, memory=False)
            steps = [training_step(form.train(), partial(form, x)) for form in forms]
            yield Case(f"{case}, training", steps[0], {rival: steps[1]}, memory=False)


if __name__ == "__main__":
    ratios.main(__doc__, ["models/rivals"])
