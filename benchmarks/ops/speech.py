"""Speech: attention that is read out, compared with attention that keeps all weights; time warping;
masked passes.

    python benchmarks/ops/speech.py [--threads 2]

Read-out: the cross-attention of a decoder of 4 layers of 8 heads of 64, 448 tokens on 1,500 states
(30 s), float32; read out are the mean of all heads' weights, or some heads, and the output. Eager
attention keeps the weights of all heads of all layers, as libraries that return them do;
peak memory is the growth of a process of its own, one thread. Time warping: 64 matrices of 448 x
1,500. The rival is openai-whisper's own function in Numba where that package is there (`pip install
openai-whisper`), called matrix by matrix, its path compared with ours; otherwise the rows are left
out. Masked passes: a decoder of Whisper tiny's size (random weights), 24 tokens, 550 states (11 s),
25 masks of states: the zeroed states of each mask, compared with one key in place of all hidden
states, in time and in scores.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from headwise.benchmarks.measure import (
    fastest,
    machine_load,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.attention_maps import attention_maps
from headwise.kernels.time_warping import time_warp
from headwise.models.speech.saliency import Divergence, KnownText, StateMasking
from headwise.models.speech.speech_to_text import Memory, SpeechToText

LAYERS, HEADS, WIDTH, TOKENS, STATES = 4, 8, 64, 448, 1500
# Layer and head, as many as tiny.en's alignment heads.
SOME = [(1, 0), (2, 0), (2, 5), *((3, head) for head in range(5))]
FORMS = ("eager", "mean", "some")


def reading(form: str) -> Callable[[], object]:
    """A call of all layers."""
    torch.manual_seed(0)
    layers = [
        [torch.randn(1, HEADS, n, WIDTH) for n in (TOKENS, STATES, STATES)] for _ in range(LAYERS)
    ]

    def eager() -> object:
        layer_weights, out = [], []
        for query, key, value in layers:
            weights = (query @ key.mT * WIDTH**-0.5).softmax(-1)
            layer_weights.append(weights)
            out.append(weights @ value)
        return torch.stack(layer_weights).mean((0, 2)), out

    def read() -> object:
        outputs = []
        for number, (query, key, value) in enumerate(layers):
            some = [head for layer, head in SOME if layer == number]
            heads = torch.tensor(some if form == "some" else list(range(HEADS)))
            if len(heads):
                outputs.append(attention_maps(query, key, value, heads, mean=form == "mean"))
            else:
                outputs.append(F.scaled_dot_product_attention(query, key, value))
        return outputs

    def call() -> object:
        with torch.no_grad():
            return eager() if form == "eager" else read()

    return call


def warping() -> None:
    """Print the rows of time warping."""
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
        return [dtw_cpu(matrix) for matrix in plain]

    ours, single, theirs = fastest(
        [lambda: time_warp(double), lambda: time_warp(cost), rival], seconds=2.0
    )
    warped, same = (time_warp(double), time_warp(cost)), [0, 0]
    for number, (rows, columns) in enumerate(rival()):
        first = np.full(TOKENS, STATES)
        np.minimum.at(first, rows, columns)
        last = np.zeros(TOKENS, int)
        np.maximum.at(last, rows, columns)
        for k, paths in enumerate(warped):
            equal_first = (first == paths.first[number].numpy()).all()
            equal_last = (last == paths.last[number].numpy()).all()
            same[k] += bool(equal_first and equal_last)
    print()
    print_header("64 matrices of 448 x 1,500", "ms", "times as fast")
    print_row("matrix by matrix (openai-whisper, Numba)", f"{theirs * 1e3:.0f}", "")
    print_row("a batch, float64 as well", f"{ours * 1e3:.0f}", f"{theirs / ours:.1f}")
    print_row("a batch, float32", f"{single * 1e3:.0f}", f"{theirs / single:.1f}")
    print(f"\nequal paths: {same[0]} of 64 in float64, {same[1]} in float32")


def masking() -> None:
    """Print the rows of masked passes."""
    torch.manual_seed(0)
    model = SpeechToText(51864, decoder_layers=4, encoder_layers=1).eval()
    memory = Memory(torch.randn(1, 550, 384), None)
    text = KnownText(torch.randint(0, 50000, (26,)), 2)
    present = torch.rand(25, 550) < 0.5
    ours = StateMasking(model, memory, text)
    plain = Divergence(model.decoder(text.fed, memory).logits[0, 1:].detach())

    @torch.no_grad()
    def zeroed() -> torch.Tensor:
        masked = Memory(memory.states * present[..., None], None)
        return plain(model.decoder(text.fed.expand(25, -1), masked).logits[:, 1:])

    fast, slow = fastest([lambda: ours(present), zeroed], seconds=3.0)
    off = float(((ours(present) - zeroed()).abs() / zeroed().clamp_min(1e-6)).max())
    print()
    print_header("masked passes of the decoder", "per second", "times as fast")
    print_row("zeroed states, projected for each mask", f"{25 / slow:.0f}", "")
    print_row("one key for all hidden states", f"{25 / fast:.0f}", f"{slow / fast:.2f}")
    print(f"\nlargest relative difference of a score: {off:.1e}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", choices=FORMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        torch.set_num_threads(1)
        print(peak_bytes(reading(arguments.peak)))
        return
    names = (
        "eager, all weights kept",
        "mean of all heads of each layer",
        f"{len(SOME)} of {LAYERS * HEADS} heads",
    )
    with machine_load("float32", arguments.threads):
        times = fastest([reading(form) for form in FORMS], seconds=2.0)
        memory = [peak_of(__file__, form) / 2**20 for form in FORMS]
        print_header("", "ms", "times as fast", "MiB", "share")
        for name, seconds, mib in zip(names, times, memory):
            speed = f"{seconds * 1e3:.0f}", f"{times[0] / seconds:.2f}"
            print_row(name, *speed, f"{mib:.1f}", f"{mib / memory[0]:.2f}")
        warping()
        masking()


if __name__ == "__main__":
    main()
