"""What a tuning gained on its task and what it lost elsewhere, beside the model as it came.

Shapes: n rows of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.language.tuning.answering import answer_prompts
from ...models.language.tuning.tuned import LanguageModel, ModelAsItCame
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Metrics
from ..metrics.bootstrap import DRAWS, draw_weights, percentile_interval
from .coding import IGNORED, Coded, DialogueCoder, batch_of, columns_of
from .data import TunePart
from .general import GeneralTexts

BATCH = 8
SHOWN = 20  # answers in the report
LEAST_BLOCKS = 8  # that an interval may rest on


class RowLosses(NamedTuple):
    """sums: float64 (n,), negative log-likelihood in nats; counts: int64 (n,), tokens that it is
    of.
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(self.sums.sum() / max(1, self.counts.sum()))

    def drawn(self, weights: np.ndarray) -> np.ndarray:
        """Nats a token by draw. weights: of the rows, (R, n) -> (R,)."""
        return weights @ self.sums / (weights @ self.counts)


_Key = tuple[int, tuple[int, ...], int]
# What was computed once. A model that was changed since has other versions of its weights.
_known: WeakKeyDictionary[nn.Module, dict[_Key, tuple[object, object]]] = WeakKeyDictionary()


def _key(model: LanguageModel, rows: object) -> _Key:
    prefix = tuple(model.prefix.tolist()) if isinstance(model, ModelAsItCame) else ()
    return id(rows), prefix, sum(weight._version for weight in model.base.parameters())


def row_losses(
    model: LanguageModel, rows: list[Coded], device: torch.device, *, padding: int = 0
) -> RowLosses:
    """The losses of rows; those of a list that was scored before are not computed again."""
    known, key = _known.setdefault(model.base, {}), _key(model, rows)
    if key in known and known[key][0] is rows:
        losses = known[key][1]
        assert isinstance(losses, RowLosses)
        return losses
    losses = _computed(model.to(device), rows, device, padding)
    known[key] = rows, losses
    return losses


@torch.no_grad()
def _computed(
    model: LanguageModel, rows: Sequence[Coded], device: torch.device, padding: int
) -> RowLosses:
    sums, counts = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
    with Progressbar(total=len(rows), unit="row", desc="scores") as bar:
        for start in range(0, len(rows), BATCH):
            chosen = order[start : start + BATCH]
            batch = batch_of([rows[k] for k in chosen], packed=False, padding=padding)
            batch = {name: value.to(device) for name, value in batch.items()}
            nats = token_losses(model, batch)
            sums[chosen] = nats.double().sum(1).cpu().numpy()
            counts[chosen] = (batch["targets"] != IGNORED).sum(1).cpu().numpy()
            bar.update(len(chosen))
    return RowLosses(sums, counts)


def token_losses(model: LanguageModel, batch: dict[str, Tensor]) -> Tensor:
    """Losses of the tokens that count, 0 for the others, (B, C)."""
    columns = columns_of(batch["targets"])
    logits = model.logits_at(batch["tokens"], batch["positions"], batch["owner"] >= 0, columns)
    return loss_of_logits(logits, batch["targets"][:, columns])


def loss_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Losses (B, C) of logits (B, C, V), 0 where a target is ignored."""
    wide = logits.float() if logits.dtype != torch.float64 else logits
    flat = F.cross_entropy(
        wide.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(targets.shape)


def answers_of(
    model: LanguageModel, part: TunePart, count: int, new_tokens: int, device: torch.device
) -> list[str | None]:
    """What the model answers to the first `count` prompts of a part; None where a prompt leaves no
    room.
    """
    known, key = _known.setdefault(model.base, {}), _key(model, part.dialogues)
    key = (*key[:2], key[2] * 1_000_003 + count * 1009 + new_tokens)
    if key in known and known[key][0] is part.dialogues:
        answers = known[key][1]
        assert isinstance(answers, list)
        return answers
    prompts = [part.coder.prompt(d.messages) for d in part.dialogues[:count]]
    answers = generated(model.to(device), prompts, part.coder, new_tokens, BATCH)
    known[key] = part.dialogues, answers
    return answers


def generated(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    coder: DialogueCoder,
    new_tokens: int,
    batch_size: int,
) -> list[str | None]:
    """The texts of answers."""
    texts = list[str | None]()
    with Progressbar(total=len(prompts), unit="answer", desc="answers") as bar:
        for start in range(0, len(prompts), batch_size):
            chosen = prompts[start : start + batch_size]
            try:
                answers = answer_prompts(
                    model, chosen, new_tokens=new_tokens, ends=coder.ends, padding=coder.padding
                )
                texts += [coder.decode(answer.tokens) for answer in answers]
            except ValueError:
                texts += [None] * len(chosen)
            bar.update(len(chosen))
    return texts


def is_exact(answer: str | None, expected: str | None) -> bool:
    """Whether an answer is the expected one, but for white space around it."""
    return answer is not None and answer.strip() == (expected or "").strip()


class Change(NamedTuple):
    """Nats a token before and after; interval: 95 %, of the difference, None for too few blocks."""

    before: float
    after: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """After minus before: below 0 it got better."""
        return self.after - self.before

    def to_json(self) -> Metrics:
        """As `metrics.json` holds it."""
        interval = None if self.interval is None else list(self.interval)
        return {
            "before": self.before,
            "after": self.after,
            "difference": self.difference,
            "interval_95": interval,
        }


def change_of(before: RowLosses, after: RowLosses, groups: np.ndarray) -> Change:
    """The paired change of the loss, drawn by groups."""
    blocks = len(np.unique(groups))
    interval = None
    if blocks >= LEAST_BLOCKS:
        draws = [after.drawn(w) - before.drawn(w) for w in draw_weights(groups, DRAWS, seed=0)]
        interval = percentile_interval(np.concatenate(draws))
    return Change(before.mean, after.mean, interval)


@dataclass(frozen=True)
class Scores:
    """What a tuning gained and lost.

    task: of the answers; losses: by row, before and after; general: by source of general texts;
    answers: before and after, of the first rows; exact: how many are right, before and after;
    converted: nats a token right after a conversion, None without one.
    """

    rows: int
    task: Change
    losses: tuple[np.ndarray, np.ndarray]
    general: dict[str, Change]
    answers: tuple[list[str | None], list[str | None]]
    exact: tuple[int, int]
    general_exact: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    converted: float | None = None

    def metrics(self) -> Metrics:
        """What `metrics.json` holds."""
        count = len(self.answers[1])
        values: Metrics = {
            "prompts": self.rows,
            "loss": self.task.after,
            "perplexity": float(np.exp(min(self.task.after, 700.0))),
            "answers": count,
            "exact": self.exact[1] / count if count else None,
            "exact_before": self.exact[0] / count if count else None,
            "task": self.task.to_json(),
            "general": {name: change.to_json() for name, change in self.general.items()},
        }
        if self.general_exact:
            values["general_exact"] = {
                name: {"answers": of, "before": before, "after": after}
                for name, (before, after, of) in self.general_exact.items()
            }
        if self.converted is not None:
            values["conversion"] = {
                "perplexity_before": float(np.exp(self.task.before)),
                "perplexity_converted": float(np.exp(min(self.converted, 700.0))),
                "perplexity_after": float(np.exp(self.task.after)),
            }
        return values

    def table(self) -> pl.DataFrame:
        """Before and after, of the task and of each source of general texts."""
        rows = [_row("the task: loss of a token of the answers", self.task)]
        rows += [_row(f"{name}: loss of a token", change) for name, change in self.general.items()]
        if count := len(self.answers[1]):
            rows.append(_exact_row("the task: answers exactly right", *self.exact, count))
        rows += [
            _exact_row(f"{name}: answers exactly right", before, after, of)
            for name, (before, after, of) in self.general_exact.items()
        ]
        return pl.DataFrame(rows)


def _row(name: str, change: Change) -> dict[str, str]:
    return {
        "what": name,
        "as it came": f"{change.before:.3f}",
        "now": f"{change.after:.3f}",
        "difference, 95 % interval": told_change(change),
    }


def _exact_row(name: str, before: int, after: int, count: int) -> dict[str, str]:
    return {
        "what": name,
        "as it came": f"{before} of {count}",
        "now": f"{after} of {count}",
        "difference, 95 % interval": f"{after - before:+d}",
    }


def told_change(change: Change) -> str:
    """A difference with its interval."""
    span = change.interval
    return f"{change.difference:+.3f}" + (
        "" if span is None else f" ({span[0]:+.3f} to {span[1]:+.3f})"
    )


def answer_table(part: TunePart, scores: Scores) -> pl.DataFrame:
    """The first prompts with their answers."""
    before, after = scores.answers
    rows = list(zip(part.dialogues, before, after, strict=False))[:SHOWN]
    return pl.DataFrame(
        [
            {
                "prompt": _short(dialogue.prompt),
                "expected": _short(dialogue.answer or ""),
                "as it came": _short(first or ""),
                "now": _short(second or ""),
            }
            for dialogue, first, second in rows
        ]
    )


def _short(text: str, limit: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def score(
    model: LanguageModel,
    came: ModelAsItCame,
    part: TunePart,
    device: torch.device,
    *,
    answers: int,
    new_tokens: int,
    converted: LanguageModel | None = None,
) -> Scores:
    """Score what predicts beside the model as it came, both on the same rows.

    answers: of how many rows; converted: the model right after a conversion.
    """
    padding = part.coder.padding
    before, after = (row_losses(m, part.coded, device, padding=padding) for m in (came, model))
    told = tuple(answers_of(m, part, answers, new_tokens, device) for m in (came, model))
    expected = [dialogue.answer for dialogue in part.dialogues[: len(told[0])]]
    exact = tuple(sum(map(is_exact, written, expected)) for written in told)
    plain = without_prefix(model)
    general, general_exact = dict[str, Change](), dict[str, tuple[int, int, int]]()
    for texts in part.general:
        first, second = (row_losses(m, texts.rows, device, padding=padding) for m in (came, plain))
        general[texts.name] = change_of(first, second, np.arange(len(texts.rows)))
        if texts.dialogues and answers:
            right = [_exact_of(m, texts, part, new_tokens, device) for m in (came, plain)]
            general_exact[texts.name] = (right[0], right[1], len(texts.dialogues))
    right_after = None
    if converted is not None:
        right_after = row_losses(converted, part.coded, device, padding=padding).mean
    return Scores(
        part.count,
        change_of(before, after, part.groups),
        (before.sums / before.counts, after.sums / after.counts),
        general,
        (told[0], told[1]),
        (exact[0], exact[1]),
        general_exact,
        right_after,
    )


def without_prefix(model: LanguageModel) -> LanguageModel:
    """The model without the examples of the task that it may see, for texts of another kind."""
    return ModelAsItCame(model.base) if isinstance(model, ModelAsItCame) else model


def _exact_of(
    model: LanguageModel, texts: GeneralTexts, part: TunePart, new_tokens: int, device: torch.device
) -> int:
    prompts = [part.coder.prompt(dialogue.messages) for dialogue in texts.dialogues]
    written = generated(model.to(device), prompts, part.coder, new_tokens, BATCH)
    return sum(is_exact(a, d.answer) for a, d in zip(written, texts.dialogues, strict=True))


def headline_of(scores: Scores, is_tuned: bool) -> str:
    """What the tuning gained and lost, in words."""
    count = len(scores.answers[1])
    who = "the tuned model" if is_tuned else "the model as it came"
    parts = []
    if count:
        parts.append(f"{who} answers {scores.exact[1]} of {count} prompts exactly")
        if is_tuned:
            parts[-1] += f", the model as it came {scores.exact[0]}"
    loss = f"loss of a token of the answers {scores.task.after:.3f}"
    if is_tuned:
        loss += f" against {scores.task.before:.3f}, {told_change(scores.task)}"
    parts.append(loss)
    if is_tuned:
        parts += [_forgotten(name, change) for name, change in scores.general.items()]
        if not scores.general:
            parts.append("what it forgot is not known (give --general)")
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _forgotten(name: str, change: Change) -> str:
    span = change.interval
    if span is None:
        word = "too few texts to tell what is forgotten"
    elif span[0] > 0:
        word = "worse than before"
    elif span[1] < 0:
        word = "better than before"
    else:
        word = "nothing forgotten that shows"
    return f"{name}: {word}, loss {told_change(change)}"
