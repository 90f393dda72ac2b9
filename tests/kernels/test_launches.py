"""How the Triton forms launch their kernels, seen without a GPU: launches are recorded, not run."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from headwise.tests.kernels import compiling

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is optional and not installed"
)


@pytest.mark.parametrize("operator", compiling.operators())
def test_no_form_asks_for_a_value_and_every_grid_can_be_launched(operator: str) -> None:
    # The tensors have no values: asking for one, as `.item()` and `.tolist()` do, raises.
    from headwise.kernels.launching import MOST_PROGRAMS

    for name, launch in compiling.launches(operator):
        assert all(0 < a <= most for a, most in zip(launch.grid, MOST_PROGRAMS)), (name, launch)


def test_a_grid_that_no_gpu_can_launch_is_refused() -> None:
    from headwise.kernels.launching import launch

    class Kernel:
        __name__ = "long_kernel"

        def __getitem__(self, grid: tuple[int, ...]):
            return lambda: None

    launch(Kernel(), (2**31 - 1, 2**16 - 1))
    with pytest.raises(ValueError, match=r"long_kernel: a grid of \(1, 65536\) .* split the batch"):
        launch(Kernel(), (1, 2**16))


SAMPLES, HEADS, PAIRS = 4400, 16, 4400 * 16  # more pairs than the second axis of a grid may have


def many(*more: int) -> torch.Tensor:
    """A tensor without values, of SAMPLES samples."""
    return torch.empty(SAMPLES, *more, device="meta")


def calls_of_many() -> dict[str, Callable[[], object]]:
    """The forms of attention on more heads of samples than 65,535."""
    forms = {
        name: import_module(f"headwise.kernels.{name}.triton")
        for name in (
            *("attention_maps", "attention_stats", "gathered_heads", "label_attention"),
            "neighbourhood",
            *("pair_attention", "ragged_attention", "signed_root_attention", "tensor_attention"),
            "ragged_decode",
        )
    }
    x, lse = many(HEADS, 2, 16), many(HEADS, 2)
    wide = torch.empty(PAIRS, 20, 16, device="meta")
    chosen, partner = torch.empty(HEADS, device="meta").long(), many().long()
    ragged = torch.empty(SAMPLES * 2, HEADS, 16, device="meta")
    offsets = torch.empty(SAMPLES + 1, device="meta").long()
    places = torch.empty(PAIRS, device="meta").long()
    few, grid = many(2, HEADS, 16), (1, 2, 3, False)
    stats, gathered, windows = (
        forms[name] for name in ("attention_stats", "gathered_heads", "neighbourhood")
    )
    pairs, third, root = (
        forms[name] for name in ("pair_attention", "tensor_attention", "signed_root_attention")
    )
    labels, query = forms["label_attention"], torch.empty(8, 16, device="meta")
    return {
        "maps": lambda: forms["attention_maps"].attend(x, x, x, chosen, False, None, 1.0),
        "stats": lambda: stats.stats(x, x, x, None, None, None, 1.0, False, True, True, 2),
        "gathered": lambda: gathered.forward(x, x, x, lse, None, False, 1.0),
        "gathered backward": lambda: gathered.backward(x, x, x, x, lse, None, x, lse, False, 1.0),
        "windows": lambda: windows.read(many(HEADS, 2, 9), x, None, *grid),
        "windows backward": lambda: windows.read_backward(
            x, lse, many(HEADS, 2, 9), x, None, x, lse, *grid
        ),
        "pairs": lambda: pairs.forward(x, x, x, partner, 1.0),
        "pairs backward": lambda: pairs.backward(x, x, x, x, partner, x, lse, 1.0),
        "third order": lambda: third.forward(x, x, x, x, x, None, None, 1.0),
        "third order backward": lambda: third.backward(x, x, x, x, x, x, None, None, x, lse, 1.0),
        "signed root": lambda: root.forward(wide, wide, wide, 1e-3),
        "signed root backward": lambda: root.backward(wide, wide, wide, wide, 1e-3),
        "labels": lambda: labels.forward(wide, query, query, None, 1.0),
        "labels backward": lambda: labels.backward(
            wide[:, 0, :8], wide, query, query, None, wide[:, 0, :8], wide[:, 0, :8], 1.0
        ),
        "decoded": lambda: forms["ragged_decode"].forward(
            wide, wide[:, 0], wide[:, 0], places, places, None, None, None, None, 1.0
        ),
        "ragged": lambda: forms["ragged_attention"].forward(few, ragged, ragged, offsets, 1.0),
    }


def test_more_heads_of_samples_than_the_second_axis_of_a_grid_are_launched() -> None:
    for name, call in calls_of_many().items():
        with compiling.recorded() as launches:
            call()
        assert launches, name
        for launch in launches:
            programs, *others = launch.grid
            least = SAMPLES if name == "ragged" else PAIRS  # its heads are the second axis
            assert programs >= least, (name, launch.grid)
            assert max(others, default=1) < 2**16, (name, launch.grid)


def binaries(tokens: int) -> set[str]:
    """What the compiler is asked for by calls with this number of tokens."""
    x = torch.empty(2, tokens, 4, 16, device="meta").transpose(1, 2)
    lse, partner = torch.empty(2, 4, tokens, device="meta"), torch.empty(2, device="meta").long()
    few, offsets = torch.empty(2, 5, 4, 16, device="meta"), torch.empty(3, device="meta").long()
    bags, query = torch.empty(2, tokens, 16, device="meta"), torch.empty(8, 16, device="meta")
    logits = torch.empty(2, 8, device="meta")
    packed = torch.empty(2 * tokens, 4, 16, device="meta")
    from headwise.kernels.attention_stats import triton as stats
    from headwise.kernels.gathered_heads import triton as gathered
    from headwise.kernels.label_attention import triton as labels
    from headwise.kernels.pair_attention import triton as pairs
    from headwise.kernels.ragged_attention import triton as ragged
    from headwise.kernels.ragged_decode import triton as decoded
    from headwise.kernels.tensor_attention import triton as third

    with compiling.recorded() as launches:
        stats.stats(x, x, x, None, None, None, 1.0, False, True, True, 2)
        gathered.backward(x, x, x, x, lse, None, x, lse, False, 1.0)
        pairs.backward(x, x, x, x, partner, x, lse, 1.0)
        ragged.forward(few, packed, packed, offsets, 1.0)
        rows = packed[:, 0].contiguous()
        decoded.forward(few[:, :, 0], rows, rows, offsets[1:], offsets[1:], *(None,) * 4, 1.0)
        third.forward(x, x, x, x, x, None, None, 1.0)
        labels.forward(bags, query, query, None, 1.0)
        labels.backward(logits, bags, query, query, None, logits, logits, 1.0)
    return {compiling.source_of(launch, "90").key for launch in launches}


def test_another_number_of_tokens_compiles_nothing_again() -> None:
    assert binaries(160) == binaries(161)
