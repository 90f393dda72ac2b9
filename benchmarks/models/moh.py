"""Time of mixture-of-head attention against the share of heads that are on, compared with softmax
attention, which has all of them on.

    python benchmarks/models/moh.py [--seconds 0.5]

Width 256, 8 heads of 32, batch 1, one thread; gathered: heads that are off are not computed; dense:
all heads, gates afterwards, as in published code. Measured as `ratios.py` says.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, training_step
from headwise.models.attention import build_attention

WIDTH, HEADS = 256, 8
SHARES = {"100 %": (2, 6), "75 %": (2, 4), "50 %": (2, 2), "25 %": (1, 1)}


def cases(size: Size) -> Iterator[Case]:
    """Inference and training of each share beside softmax attention and the dense form."""
    lengths = {"tiny": (16,), "short": (2048,), "full": (128, 256, 512, 1024, 2048)}[size]
    shares = {share: SHARES[share] for share in list(SHARES)[size == "short" :]}
    for causal in (False, True) if size == "full" else (False,):
        torch.manual_seed(0)
        softmax = build_attention("softmax", WIDTH, HEADS, causal=causal)
        for (share, (shared, active)), tokens in product(shares.items(), lengths):
            ours, dense = (
                build_attention(
                    "moh", WIDTH, HEADS, shared=shared, active=active, compute=way, causal=causal
                )
                for way in ("gathered", "dense")
            )
            dense.load_state_dict(ours.state_dict())
            forms, x = (ours, softmax.eval(), dense), torch.randn(1, tokens, WIDTH)
            torch.testing.assert_close(ours.eval()(x), dense.eval()(x), rtol=1e-3, atol=1e-4)
            name = f"{share} of the heads, {tokens:,} tokens{', causal' * causal}"
            calls = [torch.no_grad()(partial(form, x)) for form in forms]
            others = ("softmax attention", "all heads, gated")
            yield Case(f"{name}, inference", calls[0], dict(zip(others, calls[1:])), memory=False)
            steps = [training_step(form.train(), partial(form, x)) for form in forms]
            yield Case(f"{name}, training", steps[0], dict(zip(others, steps[1:])), memory=False)


if __name__ == "__main__":
    ratios.main(__doc__, ["models/moh"])
