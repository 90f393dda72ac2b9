"""Speech: attention that is read out, compared with attention that keeps all weights; time warping;
masked passes.

    python benchmarks/ops/speech.py [--threads 2] [--seconds 0.5]

Read-out: the cross-attention of a decoder of 4 layers of 8 heads of 64, 448 tokens on 1,500 states
(30 s), float32; read out are the mean of all heads' weights, or some heads, and the output. Eager
attention keeps the weights of all heads of all layers, as libraries that return them do. Time
warping: 64 matrices of 448 x 1,500. The rival is openai-whisper's own function in Numba where that
package is there (`pip install openai-whisper`), called matrix by matrix; in float64 its paths must
be ours; otherwise the rows are left out. Masked passes: a decoder of Whisper tiny's size (random
weights), 24 tokens, 550 states (11 s), 25 masks of states: the zeroed states of each mask, compared
with one key in place of all hidden states. Measured as `ratios.py` says.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, LeftOut, Size
from headwise.kernels.attention_maps import attention_maps
from headwise.kernels.time_warping import time_warp
from headwise.models.speech.saliency import Divergence, KnownText, StateMasking
from headwise.models.speech.speech_to_text import Memory, SpeechToText

LAYERS, HEADS, WIDTH, TOKENS, STATES = 4, 8, 64, 448, 1500
# Layer and head, as many as tiny.en's alignment heads.
SOME = [(1, 0), (2, 0), (2, 5), *((3, head) for head in range(5))]


@torch.no_grad()
def eager(layers: list[list[Tensor]]) -> tuple[list[Tensor], Tensor]:
    """Outputs of all layers, and the mean of the weights of all their heads, which are all kept."""
    layer_weights, outputs = [], []
    for query, key, value in layers:
        weights = (query @ key.mT * WIDTH**-0.5).softmax(-1)
        layer_weights.append(weights)
        outputs.append(weights @ value)
    return outputs, torch.stack(layer_weights).mean((0, 2))


@torch.no_grad()
def read(layers: list[list[Tensor]], mean: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of all layers, and the mean of each layer's weights, or those of some heads."""
    outputs, maps = [], []
    for number, (query, key, value) in enumerate(layers):
        heads = [head for layer, head in SOME if mean or layer == number]
        chosen = torch.arange(HEADS) if mean else torch.tensor(heads)
        if mean or heads:
            mapped = attention_maps(query, key, value, chosen, mean=mean)
            outputs.append(mapped.output)
            maps.append(mapped.maps)
        else:
            outputs.append(F.scaled_dot_product_attention(query, key, value))
    return outputs, maps


def cases(size: Size) -> Iterator[Case | LeftOut]:
    """Read-outs, time warping and masked passes."""
    tiny = size == "tiny"
    torch.manual_seed(0)
    tokens, states = (4, 8) if tiny else (TOKENS, STATES)
    layers = [[torch.randn(1, HEADS, n, WIDTH) for n in (tokens, states, states)]] * LAYERS
    expected, mean = eager(layers)
    for name, of_mean in (("mean of all heads", True), (f"{len(SOME)} of 32 heads", False)):
        outputs, maps = read(layers, of_mean)
        torch.testing.assert_close(outputs, expected, rtol=1e-3, atol=1e-5)
        if of_mean:
            torch.testing.assert_close(torch.stack(maps).mean(0)[:, 0], mean)
        others = {"all weights kept": partial(eager, layers)}
        yield Case(f"{name} read out", partial(read, layers, of_mean), others)
    yield from warping(tiny)
    yield masking(tiny)


def warping(tiny: bool) -> Iterator[Case | LeftOut]:
    """Time warping; in float64, in which Whisper sums, the paths must be the same."""
    try:
        from whisper.timing import dtw_cpu
    except ImportError:
        yield LeftOut("time warping", "openai-whisper is not installed")
        return
    torch.manual_seed(0)
    single = torch.randn((2, 6, 9) if tiny else (64, TOKENS, STATES))
    double = single.double()

    def matrix_by_matrix() -> list[np.ndarray]:
        return [dtw_cpu(matrix) for matrix in double.numpy()]

    paths = time_warp(double)
    for number, (rows, columns) in enumerate(matrix_by_matrix()):
        for row, (first, last) in enumerate(zip(paths.first[number], paths.last[number])):
            visited = columns[rows == row]
            assert (visited.min(), visited.max()) == (first, last)
    for cost in (double, single):
        name = f"time warping, {str(cost.dtype).removeprefix('torch.')}"
        others = {"openai-whisper, Numba": matrix_by_matrix}
        yield Case(name, partial(time_warp, cost), others, memory=False)


def masking(tiny: bool) -> Case:
    """Masked passes of a decoder."""
    torch.manual_seed(0)
    vocabulary, states = (64, 12) if tiny else (51864, 550)
    model = SpeechToText(vocabulary, decoder_layers=4, encoder_layers=1).eval()
    memory = Memory(torch.randn(1, states, 384), None)
    text = KnownText(torch.randint(0, vocabulary - 8, (26,)), 2)
    present = torch.rand(25, states) < 0.5
    ours = StateMasking(model, memory, text)
    plain = Divergence(model.decoder(text.fed, memory).logits[0, 1:].detach())

    @torch.no_grad()
    def zeroed() -> torch.Tensor:
        masked = Memory(memory.states * present[..., None], None)
        return plain(model.decoder(text.fed.expand(25, -1), masked).logits[:, 1:])

    torch.testing.assert_close(ours(present), zeroed(), rtol=1e-2, atol=1e-6)
    others = {"zeroed states": zeroed}
    return Case("25 masked passes of a decoder", partial(ours, present), others, memory=False)


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/speech"])
