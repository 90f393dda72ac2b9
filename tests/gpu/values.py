"""Values and gradients of all operators on fuzzed shapes and layouts, compared with their plain
forms in float64, and two runs with each other, bit by bit.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from headwise.tests.kernels import cases
from headwise.tests.kernels.cases import Case, Maker, Sizes, differentiated, straight
from headwise.tests.kernels.layouts import permuted, strided
from headwise.tests.kernels.poisoned import poisoned

EDGES = (1, 15, 16, 17, 31, 33, 64, 65, 127, 129)  # around the sides of tiles
TINY = (1, 3, 17)  # for the interpreter
LAYOUTS = (straight, permuted, strided)
FAR = 1e4
MANY = 65_537  # heads of samples: one more than the second axis of a grid may have
# Of the largest number of a result, at least 1; of a gradient five times that. Plain forms reach
# 0.7 of it in half precision and 0.06 in float32; one product of TF32 in place of three is off by
# 3e-4.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 8e-3, torch.float16: 2e-3}
IN_A_ROW = {cases.experts: 3}  # operators that round one after the other
FAR_TOLERANCE = 5e-2  # scores of 1e4 have errors of 1e-3 in float32, and so have weights
# Whose first step multiplies queries by keys, so that scores can be far from 0.
WITH_SCORES = (
    *(cases.stats, cases.maps, cases.gathered, cases.pairs, cases.windows, cases.ragged),
    *(cases.partial, cases.third_order, cases.pooled, cases.draws, cases.labels, cases.decoded),
)

# Where another form of an operator runs: a fused call, keys split over programs.
OTHER_FORMS = {
    cases.fused_stats: Sizes(2, 2, 70, 70, 64, 64, "keys"),
    cases.pairs: Sizes(2, 1, 520, 520, 64, 64),
    cases.ragged: Sizes(1, 2, 5, 4000, 64, 64),
    cases.decoded: Sizes(2, 2, 3, 4000, 64, 64, "heads"),
}

# Whose grids are made of heads of samples, and whose plain forms take them together.
WITH_HEADS = (
    *(cases.stats, cases.maps, cases.gathered, cases.pairs, cases.windows, cases.third_order),
    *(cases.partial, cases.moments, cases.signed_root),
)


class Trial(NamedTuple):
    """One comparison. far: of the scores from 0; where gradients are compared, it is 1."""

    case: Case
    sizes: Sizes
    dtype: torch.dtype
    lay: Callable[[Tensor], Tensor] = straight
    far: float = 1.0

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        far = f", scores of {self.far:g}" if self.far > 1 else ""
        return f"{self.case.__name__} {kind}, {self.sizes}, {self.lay.__name__}{far}"


def fuzzed(draw: random.Random, edges: tuple[int, ...]) -> Sizes:
    """Random sizes."""
    tokens, keys, width, values = (draw.choice(edges) for _ in range(4))
    mask, causal = draw.choice(["", "keys", "pairs", "heads"]), draw.random() < 0.3
    return Sizes(draw.randint(1, 3), draw.randint(1, 2), tokens, keys, width, values, mask, causal)


def trials(
    seed: int, shapes: int, types: tuple[torch.dtype, ...], tiny: bool = False
) -> Iterator[Trial]:
    """For each operator and type: fuzzed sizes in several layouts, scores far from 0, nothing to
    compute, and, unless all shall be tiny, many heads of samples.
    """
    edges = TINY if tiny else EDGES
    for case in cases.CASES:
        for dtype in types:
            draw = random.Random(f"{seed} {case.__name__}")  # the same sizes in each type
            for number in range(shapes):
                sizes = fuzzed(draw, edges)
                if tiny and case is cases.windows:  # the interpreter takes them cell by cell
                    sizes = sizes._replace(tokens=min(sizes.tokens, 7))
                yield Trial(case, sizes, dtype, LAYOUTS[number % len(LAYOUTS)])
        single = types[0]
        if case in WITH_SCORES:
            yield Trial(case, Sizes(2, 2, edges[-1] // 2, 7, 16, 16), single, far=FAR)
        yield Trial(case, Sizes(batch=0), single)
        yield Trial(case, Sizes(batch=2, tokens=0, keys=3), single)
        if not tiny:
            yield Trial(case, Sizes(129, 1, 8, 8, 64, 64), types[-1])  # enough rows an expert
            if case in OTHER_FORMS:
                yield Trial(case, OTHER_FORMS[case], types[-1])
            if case in WITH_HEADS:
                yield Trial(case, Sizes(MANY, 1, 2, 3, 4, 4), single)


def run(trial: Trial, device: torch.device) -> tuple[list[Tensor], list[Tensor], Maker]:
    """Results and gradients of the operator on the device."""
    x = Maker(trial.lay, trial.dtype, device, trial.far)
    with poisoned():
        results, slopes = differentiated(x, trial.case(x, trial.sizes))
    return results, slopes, x


def expected(trial: Trial, notes: dict[str, Tensor], device: torch.device) -> tuple:
    """Results and gradients in float64, of the plain form; on the CPU, unless there are very many
    samples, which the CPU takes slowly.
    """
    place = torch.device("cpu") if trial.sizes.batch < MANY // 4 else device
    x = Maker(straight, trial.dtype, place, trial.far, notes)
    return differentiated(x, trial.case(x, trial.sizes))


def wrong(trial: Trial, device: torch.device) -> list[str]:
    """What differs: one line for each tensor; none where all is right."""
    results, slopes, x = run(trial, device)
    again = run(trial, device)
    lines = [
        f"{name} {place} differs between two runs"
        for name, first, second in (("result", results, again[0]), ("gradient", slopes, again[1]))
        for place, (a, b) in enumerate(zip(first, second, strict=True))
        if not torch.equal(a.detach().cpu().nan_to_num(), b.detach().cpu().nan_to_num())
    ]
    right = expected(trial, x.notes, device)
    tolerance = TOLERANCES[trial.dtype] * IN_A_ROW.get(trial.case, 1)
    if trial.far > 1:
        lines += differences("result", results, right[0], FAR_TOLERANCE)
        some = [s for s, plain in zip(slopes, right[1]) if bool(plain.isfinite().all())]
        bad = sum(not bool(slope.isfinite().all()) for slope in some)
        return [*lines, *([f"{bad} gradients are not finite"] if bad else [])]
    lines += differences("result", results, right[0], tolerance)
    return lines + differences("gradient", slopes, right[1], 5 * tolerance)


def differences(name: str, some: list[Tensor], right: list[Tensor], tolerance: float) -> list[str]:
    """Lines about tensors that are not the right ones."""
    lines = []
    for place, (a, b) in enumerate(zip(some, right, strict=True)):
        a, b = a.detach().cpu(), b.detach().cpu()
        if a.shape != b.shape:
            lines.append(f"{name} {place} has shape {tuple(a.shape)}, not {tuple(b.shape)}")
        elif not b.is_floating_point():
            if not torch.equal(a, b):
                lines.append(f"{name} {place} differs in {int((a != b).sum())} of {a.numel()}")
        elif (error := largest_error(a.double(), b.double())) > tolerance:
            lines.append(f"{name} {place} is off by {error:.2g}, allowed is {tolerance:.2g}")
    return lines


def largest_error(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest number of b or of 1; infinite where a number
    that is not finite is another one.
    """
    finite = b.isfinite()
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()) or not bool(
        a[finite].isfinite().all()
    ):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    scale = max(1.0, float(b[finite].abs().max()))
    return float((a[finite] - b[finite]).abs().max()) / scale
