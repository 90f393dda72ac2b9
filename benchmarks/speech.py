"""Speech: attention that is read out beside attention that keeps all weights; time warping; masked
passes.

    python benchmarks/speech.py [--threads 2]

Read-out: the cross-attention of a decoder of 4 layers of 8 heads of 64, 448 tokens on 1,500 states
(30 s), float32; what is wanted is the mean of all heads' weights, or some heads, and the output.
Eager attention keeps the weights of all heads of all layers, as libraries do that hand them out;
peak memory is the growth of a process of its own, one thread. Time warping: 64 matrices of 448 x
1,500. The rival is openai-whisper's own function in Numba where that package is there (`pip install
openai-whisper`), called matrix by matrix, its path compared with ours; else the rows are left out.
Masked passes: a decoder of Whisper tiny's size (random weights), 24 tokens, 550 states (11 s), 25
masks of states: each mask's zeroed states beside the one key that stands for all hidden states;
scores compared."""

import argparse
import os
from collections.abc import Callable

import numpy as np
import torch
from measure import fastest, peak_bytes, peak_of

from headwise.kernels.attention_maps import attention_maps
from headwise.kernels.time_warping import time_warp
from headwise.models.speech.saliency import Divergence, KnownText, StateMasking
from headwise.models.speech.speech_to_text import Memory, SpeechToText

LAYERS, HEADS, WIDTH, TOKENS, STATES = 4, 8, 64, 448, 1500
SOME = [
    (1, 0),
    (2, 0),
    (2, 5),
    (3, 0),
    (3, 1),
    (3, 2),
    (3, 3),
    (3, 4),
]  # as many as tiny.en's alignment heads
FORMS = ("eager", "mean", "some")


def reading(form: str) -> Callable[[], object]:
    """All layers once."""
    torch.manual_seed(0)
    layers = [
        [torch.randn(1, HEADS, n, WIDTH) for n in (TOKENS, STATES, STATES)] for _ in range(LAYERS)
    ]

    def eager() -> object:
        kept, out = [], []
        for query, key, value in layers:
            weights = (query @ key.mT * WIDTH**-0.5).softmax(-1)
            kept.append(weights)
            out.append(weights @ value)
        return torch.stack(kept).mean((0, 2)), out

    def read() -> object:
        found = []
        for number, (query, key, value) in enumerate(layers):
            heads = (
                [head for layer, head in SOME if layer == number]
                if form == "some"
                else list(range(HEADS))
            )
            if heads:
                found.append(
                    attention_maps(query, key, value, torch.tensor(heads), mean=form == "mean")
                )
            else:
                found.append(torch.nn.functional.scaled_dot_product_attention(query, key, value))
        return found

    def call() -> object:
        with torch.no_grad():
            return eager() if form == "eager" else read()

    return call


def warping(threads: int) -> None:
    """Prints the rows of time warping."""
    torch.manual_seed(0)
    cost = torch.randn(64, TOKENS, STATES)
    try:
        from whisper.timing import dtw_cpu
    except ImportError:
        print("\nopenai-whisper is not installed: its time warping is left out")
        return
    double = cost.double()  # in which the rival sums, whatever it is given
    plain = double.numpy()

    def rival() -> list[np.ndarray]:
        return [dtw_cpu(one) for one in plain]

    ours, single, theirs = fastest(
        [lambda: time_warp(double), lambda: time_warp(cost), rival], seconds=2.0
    )
    warped, same = (time_warp(double), time_warp(cost)), [0, 0]
    for number, (rows, columns) in enumerate(rival()):
        first = np.full(TOKENS, STATES)
        np.minimum.at(first, rows, columns)
        last = np.zeros(TOKENS, int)
        np.maximum.at(last, rows, columns)
        for k, one in enumerate(warped):
            same[k] += bool(
                (first == one.first[number].numpy()).all()
                and (last == one.last[number].numpy()).all()
            )
    print("\n| 64 matrices of 448 x 1,500 | ms | times as fast |")
    print("|---|---|---|")
    print(f"| matrix by matrix (openai-whisper, Numba) | {theirs * 1e3:.0f} | |")
    print(f"| a batch, float64 as well | {ours * 1e3:.0f} | {theirs / ours:.1f} |")
    print(f"| a batch, float32 | {single * 1e3:.0f} | {theirs / single:.1f} |")
    print(f"\nequal paths: {same[0]} of 64 in float64, {same[1]} in float32")


def masking() -> None:
    """Prints the rows of masked passes."""
    torch.manual_seed(0)
    model = SpeechToText(51864, decoder_layers=4, encoder_layers=1).eval()
    memory = Memory(torch.randn(1, 550, 384), None)
    text = KnownText(torch.randint(0, 50000, (26,)), 2)
    kept = torch.rand(25, 550) < 0.5
    ours = StateMasking(model, memory, text)
    plain = Divergence(model.decoder(text.fed, memory).logits[0, 1:].detach())

    @torch.no_grad()
    def zeroed() -> torch.Tensor:
        masked = Memory(memory.states * kept[..., None], None)
        return plain(model.decoder(text.fed.expand(25, -1), masked).logits[:, 1:])

    fast, slow = fastest([lambda: ours(kept), zeroed], seconds=3.0)
    off = float(((ours(kept) - zeroed()).abs() / zeroed().clamp_min(1e-6)).max())
    print("\n| masked passes of the decoder | a second | times as fast |")
    print("|---|---|---|")
    print(f"| zeroed states, projected for each mask | {25 / slow:.0f} | |")
    print(f"| one key for all hidden states | {25 / fast:.0f} | {slow / fast:.2f} |")
    print(f"\nlargest relative difference of a score: {off:.1e}")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--peak", choices=FORMS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.peak:
        torch.set_num_threads(1)
        print(peak_bytes(reading(given.peak)))
        return
    torch.set_num_threads(given.threads)
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {given.threads} threads\n")
    times = fastest([reading(form) for form in FORMS], seconds=2.0)
    memory = [peak_of(__file__, form) / 2**20 for form in FORMS]
    names = (
        "eager, all weights kept",
        "mean of all heads of each layer",
        f"{len(SOME)} of {LAYERS * HEADS} heads",
    )
    print("| | ms | times as fast | MiB | share |")
    print("|---|---|---|---|---|")
    for name, seconds, mib in zip(names, times, memory):
        print(
            f"| {name} | {seconds * 1e3:.0f} | {times[0] / seconds:.2f} | {mib:.1f} | {mib / memory[0]:.2f} |"
        )
    warping(given.threads)
    masking()
    print(
        f"\nload of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after (alone: about {given.threads})"
    )


if __name__ == "__main__":
    main()
