"""How good a plan is: answers, their loss and that of the text, read as they are in use, with the
cut cache.

Shapes: n prompts, P tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.language.plans.plan import Plan
from ...models.language.running.attach import attach
from ..engine.command_line.terminal import Progressbar
from ..engine.spec import JsonValue
from ..metrics.bootstrap import interval_of_mean
from ..metrics.proportions import wilson
from .coding import Tokens
from .comparing import FULL, PLAN, SHUFFLED, UNIFORM, WORDS, size_of
from .data import PromptPart

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...models.language.running.attach import Attached

TEXT_PLACES = 256  # tokens of a prompt whose loss is measured, spread over it


@dataclass(frozen=True)
class PromptScores:
    """Of each prompt, float64 (n,). loss: of the answer's tokens, mean in nats, nan without an
    answer; right: 1 where greedy decoding writes the answer, else 0, nan without one; text: loss of
    the prompt's own tokens; cache: bytes that the cache holds after the prompt.
    """

    loss: np.ndarray
    right: np.ndarray
    text: np.ndarray
    cache: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """What plans are compared by: the loss of the answer, of the text where there is none."""
        return np.where(np.isnan(self.loss), self.text, self.loss)


class _Row(NamedTuple):
    loss: float
    right: float
    text: float
    cache: float


def scores_of(
    model: PreTrainedModel, plan: Plan, part: PromptPart, shown: str = "scores"
) -> PromptScores:
    """Score a plan on a part; what was measured before is not measured again."""
    key = plan.digest()
    if key not in part.memory:
        part.memory[key] = scores_of_tokens(model, plan, part.tokens, shown)
    return part.memory[key]


@torch.no_grad()
def scores_of_tokens(
    model: PreTrainedModel, plan: Plan, prompts: Sequence[Tokens], shown: str = "scores"
) -> PromptScores:
    """Score a plan on prompts, one after the other."""
    rows = []
    with (
        attach(model, plan) as attached,
        Progressbar(total=len(prompts), unit="prompt", desc=shown) as bar,
    ):
        for tokens in prompts:
            rows.append(_score(model, attached, tokens))
            bar.update()
    return PromptScores(*(np.array(column, float) for column in zip(*rows)))


def _score(model: PreTrainedModel, attached: Attached, tokens: Tokens) -> _Row:
    """Read a prompt, then its answer token by token, as they are generated."""
    ids = torch.tensor([tokens.prompt], device=model.device)
    cache = attached.cache()
    places = _text_places(len(tokens.prompt), model.device)
    logits = model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=places).logits[0]
    following = ids[0, places[:-1] + 1]
    text = float(F.cross_entropy(logits[:-1].float(), following)) if len(following) else np.nan
    held = float(cache.bytes())
    if not tokens.answer:
        return _Row(np.nan, np.nan, text, held)
    losses, right, last = [], True, logits[-1]
    for number, token in enumerate(tokens.answer):
        losses.append(float(-last.float().log_softmax(-1)[token]))
        right &= int(last.argmax()) == token
        if number + 1 < len(tokens.answer):
            step = torch.tensor([[token]], device=model.device)
            last = model(input_ids=step, cache=cache, use_cache=True).logits[0, -1]
    return _Row(float(np.mean(losses)), float(right), text, held)


def _text_places(length: int, device: torch.device) -> Tensor:
    """Places whose next token is scored, int64, spread over the prompt; the last is its end."""
    count = min(TEXT_PLACES, max(0, length - 1))
    places = np.unique(np.linspace(0, length - 2, count).round().astype(int)) if count else []
    return torch.tensor([*places, length - 1], dtype=torch.int64, device=device)


def beyond_window(plan: Plan, part: PromptPart) -> np.ndarray:
    """Prompts whose answer stands where no cut head of the plan can read it at the end, bool (n,):
    after all sinks and before all windows. False where it is not known where it stands, and for a
    plan that cuts nothing.
    """
    rules = [
        rule for layer in range(plan.facts.layers) for rule in plan.rules(layer) if not rule.full
    ]
    if plan.inheriting and plan.budget is not None:
        sink, window = plan.budget.sink, plan.budget.recent
    elif rules:
        sink, window = max(rule.sink for rule in rules), None
    else:
        return np.zeros(len(part), bool)
    flags = []
    for prompt, tokens in zip(part.prompts, part.tokens, strict=True):
        length, place = len(tokens.prompt), prompt.place
        if place is None:
            flags.append(False)
            continue
        begin, end = (length * chars / len(prompt.text) for chars in place)
        reach = window if window is not None else max(rule.window(length) for rule in rules)
        flags.append(begin >= sink and end <= length - reach)
    return np.array(flags, bool)


def scores_table(
    scores: Mapping[str, PromptScores], plans: Mapping[str, Plan], part: PromptPart
) -> pl.DataFrame:
    """A row for each plan: what it keeps, answers and losses with 95 % intervals by prompt."""
    rows = []
    for name, values in scores.items():
        answered = values.right[~np.isnan(values.right)]
        low, high = wilson(int(answered.sum()), len(answered))
        rows.append(
            {
                "plan": name,
                "what it is": WORDS[name],
                "kept of the cache": _mean(values.cache) / _mean(scores[FULL].cache),
                "keys read": size_of(plans[name], part.longest),
                "right answers": f"{int(answered.sum())} of {len(answered)}",
                "95 % interval of their share": f"{low:.2f} to {high:.2f}"
                if len(answered)
                else None,
                "loss of the answer": _mean(values.loss),
                "95 % interval": _span(values.loss, part.groups),
                "loss of the text": _mean(values.text),
                "95 % interval of it": _span(values.text, part.groups),
            }
        )
    return pl.DataFrame(rows)


def table_by(part: PromptPart, scores: Mapping[str, PromptScores]) -> pl.DataFrame:
    """Right answers of each plan by kind, length and depth of the prompts."""
    keys = [
        (prompt.kind, prompt.length or len(tokens.prompt), prompt.depth)
        for prompt, tokens in zip(part.prompts, part.tokens, strict=True)
    ]
    if any(prompt.length is None for prompt in part.prompts):  # lengths that nobody asked for
        keys = [(kind, None, depth) for kind, _, depth in keys]
    frame = pl.DataFrame(
        {
            "kind": [key[0] for key in keys],
            "length": pl.Series([key[1] for key in keys], dtype=pl.Int64),
            "depth": pl.Series([key[2] for key in keys], dtype=pl.Float64),
            **{name: values.right for name, values in scores.items()},
        }
    )
    means = [pl.col(name).fill_nan(None).mean() for name in scores]
    grouped = frame.group_by("kind", "length", "depth").agg(pl.len().alias("prompts"), *means)
    return grouped.sort("kind", "length", "depth", nulls_last=True)


def metrics_of(
    scores: Mapping[str, PromptScores], plans: Mapping[str, Plan], part: PromptPart
) -> dict[str, JsonValue]:
    """What `metrics.json` holds of the plans, by name."""
    metrics: dict[str, JsonValue] = {"prompts": len(part)}
    for name, values in scores.items():
        answered = values.right[~np.isnan(values.right)]
        metrics[name] = {
            "kept": _mean(values.cache) / _mean(scores[FULL].cache),
            "keys_read": size_of(plans[name], part.longest),
            "cache_bytes": _mean(values.cache),
            "right": float(answered.sum()),
            "answers": float(len(answered)),
            "accuracy": _mean(values.right),
            "accuracy_interval_95": list(wilson(int(answered.sum()), len(answered))),
            "answer_loss": _mean(values.loss),
            "text_loss": _mean(values.text),
        }
    return metrics


def headline_of(
    scores: Mapping[str, PromptScores], plans: Mapping[str, Plan], part: PromptPart
) -> str:
    """What the plan keeps and what that costs, in a sentence."""
    values, full, uniform = (scores[name] for name in (PLAN, FULL, UNIFORM))
    kept = _mean(values.cache) / _mean(full.cache)
    read = size_of(plans[PLAN], part.longest)
    sentence = f"Keeps {kept:.0%} of the cache"
    if plans[PLAN].inheriting:
        sentence += f" and reads {read:.0%} of it while it writes"
    far = beyond_window(plans[PLAN], part) & ~np.isnan(values.right)
    if far.any():
        count, total = int(values.right[far].sum()), int(far.sum())
        right_in_full = int(full.right[far].sum())
        beside = (
            "as the entire cache" if count == right_in_full else f"the entire cache {right_in_full}"
        )
        sentence += f"; answers that need text beyond the window: {count} of {total}, {beside}"
    elif (~np.isnan(values.right)).any():
        count, total = int(np.nansum(values.right)), int((~np.isnan(values.right)).sum())
        sentence += (
            f"; right answers: {count} of {total}, the entire cache {int(np.nansum(full.right))}"
        )
    change = _mean(values.text) / _mean(full.text) - 1
    sentence += f"; text loss {change:+.0%}".replace("-0%", "+0%")
    gain = uniform.measured - values.measured
    low, _ = interval_of_mean(gain, part.groups)
    if uniform.cache is values.cache or not gain.any():
        return f"{sentence}. Uniform windows of this size are the same plan"
    if low > 0:
        return f"{sentence}. Better than the same window for all heads at this size"
    return f"{sentence}. The same window for all heads is as good at this size, by these prompts"


def names_of(scores: Mapping[str, PromptScores]) -> Sequence[str]:
    """The plans in the order of tables and figures."""
    return [name for name in (FULL, UNIFORM, PLAN, SHUFFLED) if name in scores]


def _mean(values: np.ndarray) -> float:
    """nan, without a warning, where nothing was measured."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _span(values: np.ndarray, groups: np.ndarray) -> str | None:
    known = ~np.isnan(values)
    if not known.any():
        return None
    low, high = interval_of_mean(values[known], groups[known])
    return f"{low:.3g} to {high:.3g}"
