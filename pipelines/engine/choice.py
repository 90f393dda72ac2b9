"""Which rung of a ladder predicts."""

from __future__ import annotations

from .ladder import LEAST_BLOCKS, RUNGS, LadderScores
from .options import RungName

TIE = 0.002
"""Share of the best rung's gain over the naive one by which a simpler rung may be worse, and is
chosen nevertheless."""


def choose(scores: LadderScores, *, proven: bool = False) -> tuple[RungName, str]:
    """The rung to predict with, by its scores on the validation part, and why.

    A rung must be better than the naive one, beyond doubt where there are enough blocks to tell. Of
    those that are, the best is chosen, or the simplest that is as good; the blend where there are
    too few blocks to tell, or no validation part.

    proven: whether the simple rung is known to be better than the naive one from more rows; then
    it and the blend need not show it again, but may not be worse here beyond doubt.

    >>> import numpy as np
    >>> draws = {"naive": np.ones(9), "simple": np.zeros(9)}
    >>> choose(LadderScores("MSE", False, {"naive": 1.0, "simple": 0.0}, draws, 9))
    ('simple', 'the best on the validation part')
    """
    present = [rung for rung in RUNGS if rung in scores.score]
    if not scores.blocks and "blend" in present:
        return "blend", "as no validation part can tell its parts apart"
    if "naive" not in present:
        able = present
    else:
        of_proven = ("simple", "blend") if proven else ()
        able = [rung for rung in present[1:] if _is_able(scores, rung, rung in of_proven)]
        if not able:
            return "naive", "no other is better beyond doubt on the validation part"
    if "blend" in able and scores.blocks < LEAST_BLOCKS:
        # A mean of two is the safe choice where the better one cannot be told.
        return "blend", f"as {scores.blocks} blocks of validation rows cannot tell its parts apart"
    best = max(able, key=lambda rung: scores.gain(rung, able[0]))
    reach = abs(scores.gain(best, "naive")) if "naive" in present else abs(scores.score[best])
    for rung in able:
        if scores.gain(best, rung) <= TIE * reach:
            tied = rung != best
            return rung, (
                f"as good as the {best} on the validation part, and simpler"
                if tied
                else "the best on the validation part"
            )
    raise AssertionError("the best rung is as good as itself")


def _is_able(scores: LadderScores, rung: RungName, proven: bool) -> bool:
    """Whether a rung is better than the naive one beyond doubt, or proven and no worse."""
    interval = scores.gain_interval(rung, "naive")
    if proven:
        return interval is None or interval[1] >= 0
    return scores.gain(rung, "naive") > 0 and (interval is None or interval[0] > 0)
