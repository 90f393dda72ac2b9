"""Loss, error rates, word times beside known ones: what a model is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.speech.transcripts import Word
from ...models.speech.speech_to_text import Memory, SpeechToText
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Review, Splits
from ..engine.training.order import sequential
from ..figures.classifier import with_interval
from ..metrics.alignment import Boundaries, boundary_errors, text_errors
from . import figures
from .augment import augmented
from .data import Corpus, collated
from .prediction import Hearer
from .word_times import fitted_lag

LAG_RECORDINGS = 64  # of the validation part, on which the lag of the maps is fitted


def loss(model: nn.Module, batch: dict[str, Tensor], options: Any) -> Tensor:
    """Label-smoothed cross-entropy of each token, and connectionist temporal classification of the
    encoder.
    """
    plain: Any = getattr(model, "module", model)
    features = (
        augmented(batch["features"], batch["frames"], options)
        if model.training
        else batch["features"]
    )
    memory = plain.encode(features, batch.get("lengths"))
    entropy, text, sizes = _entropy(plain, memory, batch, options.smoothing)
    if plain.ctc is None or not options.ctc:
        return entropy
    states = (batch["frames"] + 1) // 2
    scores = plain.ctc(memory.states).float().log_softmax(-1).transpose(0, 1)
    blank = scores.shape[-1] - 1
    given = F.ctc_loss(scores, text, states, sizes, blank=blank, zero_infinity=True)
    return (1 - options.ctc) * entropy + options.ctc * given


def _entropy(
    plain: Any, memory: Memory, batch: dict[str, Tensor], smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over the tokens that are to be said, the tokens of the text (B, I) and how many they are
    (B,).
    """
    logits, text, there = _said(plain, memory, batch)
    target = text.masked_fill(~there, -100)
    found = F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=smoothing)
    return found, text, there.sum(1) - 1


def _said(plain: Any, memory: Memory, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, I, V), float32, of the tokens behind the prompt, these tokens with the end, and
    which are there.
    """
    tokens, start = batch["tokens"], int(batch["prompt"][0])
    mask = torch.arange(tokens.shape[1], device=tokens.device) < batch["sizes"][:, None]
    logits = plain.decoder(tokens[:, :-1], memory, mask=mask[:, :-1]).logits[:, start - 1 :]
    return logits.float(), tokens[:, start:], mask[:, start:]


def validate(model: nn.Module, batches: Any) -> dict[str, float]:
    """Cross-entropy of a token, and how many are the likeliest where those before are known."""
    plain: Any = getattr(model, "module", model)
    total = right = count = 0.0
    for batch in batches:
        memory = plain.encode(batch["features"], batch.get("lengths"))
        logits, target, there = _said(plain, memory, batch)
        said = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
        total -= float(said[there].double().sum())
        right += float((logits.argmax(-1) == target)[there].sum())
        count += float(there.sum())
    return {"loss": total / count, "token_accuracy": right / count}


def heard_by(
    model: Any, part: Corpus, lag: int, spec: dict[str, Any], device: torch.device
) -> Hearer:
    """What a model hears with, during its training or after it."""
    return Hearer(getattr(model, "module", model), part.tokens, spec, lag, device)


def memory_of(heard: Hearer, part: Corpus, places: Sequence[int]) -> Memory:
    """Encoded utterances of a part."""
    batch = collated([part.features(k) for k in places])
    lengths = None if part.whole else batch["lengths"].to(heard.device)
    with torch.no_grad():
        return heard.model.encode(batch["features"].to(heard.device), lengths)


def has_maps(model: SpeechToText) -> bool:
    """Whether the cross-attention has weights to read word times from."""
    cross = model.decoder.layers[0].cross
    width = model.decoder.tokens.weight.shape[1]
    x = model.decoder.tokens.weight.new_zeros((1, 2, width))
    try:
        cross.weights(x, x)  # type: ignore[union-attr, operator]
    except ValueError:
        return False
    return True


def finish(
    model: nn.Module, splits: Splits, options: Any, device: torch.device
) -> dict[str, Tensor]:
    """The lag of the maps, fitted on words of the validation part whose times are known; Whisper's,
    or 0, without.
    """
    part: Corpus = splits.validation
    timed = [k for k in range(len(part)) if part.utterances[k].words][:LAG_RECORDINGS]
    heard = heard_by(model, part, 0, splits.spec, device)
    if not timed or not has_maps(heard.model):
        from .verbs.adopt import LAG

        return {"lag": torch.tensor(LAG if part.whole else 0)}

    def times(lag: int) -> list[list[Word]]:
        own, found = heard_by(model, part, lag, splits.spec, device), []
        for places in sequential(len(timed), 16):
            chosen = [timed[k] for k in places]
            ids = [part.ids[k][len(part.tokens.prompt) : -1] for k in chosen]
            sound = [part.utterances[k].samples() for k in chosen]
            found += own.times(memory_of(own, part, chosen), ids, sound).words
        return found

    return {"lag": torch.tensor(fitted_lag(times, [part.utterances[k].words or () for k in timed]))}


def review(
    model: nn.Module,
    part: Corpus,
    calibration: dict[str, Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> Review:
    """Error rates with intervals by speaker, word times where they are known, the worst and the
    best recordings.
    """
    heard = heard_by(model, part, int(calibration["lag"]), spec, device)
    said, words = _transcribed(heard, part)
    true = [one.text or "" for one in part.utterances]
    groups = [one.speaker or one.name for one in part.utterances]
    groups = groups if len(set(groups)) > 1 else [one.name for one in part.utterances]
    per_word, per_letter = text_errors(said, true), text_errors(said, true, characters=True)
    ends = {
        name: list(one.interval(groups, seed=options.seed))
        for name, one in (("wer", per_word), ("cer", per_letter))
    }
    metrics: dict[str, Any] = {
        "wer": per_word.rate,
        "cer": per_letter.rate,
        "intervals": ends,
        "recordings": len(part),
        "words": int(per_word.total.sum()),
        "speakers": len({one.speaker for one in part.utterances}),
        "baselines": {"the same text for all": {"wer": _floor(true)}},
        "lag": heard.lag,
    }
    rows = [
        {"score": "word error rate", "value": with_interval(metrics, "wer")},
        {"score": "character error rate", "value": f"{per_letter.rate:.3f}"},
        {"score": "word error rate of the same text for all", "value": f"{_floor(true):.3f}"},
    ]
    bounds = _bounds(part, words)
    if bounds is not None and len(bounds.start):
        metrics["times"] = bounds.summary()
        rows += [
            {"score": name.replace("_", " "), "value": f"{value:.3g}"}
            for name, value in bounds.summary().items()
        ]
    worst = np.argsort(-per_word.wrong / np.maximum(1, per_word.total), kind="stable")
    listed = [
        {
            "recording": part.utterances[k].name,
            "errors": int(per_word.wrong[k]),
            "said": said[k],
            "true": true[k],
        }
        for k in worst[:10].tolist()
        if per_word.wrong[k]
    ]
    tables = {"Scores on this part": pl.DataFrame(rows)}
    if listed:
        tables["Most errors"] = pl.DataFrame(listed)
    pictures = []
    chosen = [int(k) for k in [*worst[::-1][:1], *worst[:1]]]
    for k in dict.fromkeys(chosen):
        pictures.append(_picture(heard, part, k, words[k], said[k]))
    if bounds is not None and len(bounds.start):
        pictures.append(figures.times(bounds))
    times = metrics.get("times", {})
    heard_times = (
        f"; word starts off by {times['start_mae_ms']:.0f} ms on average"
        if times.get("words")
        else ""
    )
    headline = (
        f"{len(part)} recordings, {metrics['words']} words: word error rate {with_interval(metrics, 'wer')}, "
        f"the same text for all {_floor(true):.3f}{heard_times}."
    )
    return Review(metrics, headline, pictures, tables)


def _transcribed(heard: Hearer, part: Corpus) -> tuple[list[str], list[list[Word]]]:
    """Text and words of every utterance; words without times where there are no maps."""
    said, words = [""] * len(part), [[] for _ in range(len(part))]
    order = sorted(range(len(part)), key=lambda k: part.seconds[k])
    maps = has_maps(heard.model)
    with Progressbar(total=len(part), unit="recording", desc="scores") as bar:
        for places in sequential(len(order), 8):
            chosen = [order[k] for k in places]
            memory = memory_of(heard, part, chosen)
            found = heard.transcripts(memory, [part.seconds[k] for k in chosen])
            own: list[list[Word]] = [[] for _ in chosen]
            if maps:
                sound = [part.utterances[k].samples() for k in chosen]
                own = heard.times(memory, [one.tokens for one in found], sound).words
            for k, one, each in zip(chosen, found, own):
                said[k], words[k] = heard.tokens.decode(one.tokens), each
            bar.update(len(chosen))
    return said, words


def _bounds(part: Corpus, words: Sequence[Sequence[Word]]) -> Boundaries | None:
    known = [k for k in range(len(part)) if part.utterances[k].words]
    if not known:
        return None
    return boundary_errors(
        [_plain(words[k]) for k in known], [_plain(part.utterances[k].words or ()) for k in known]
    )


def _plain(words: Sequence[Word]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in words]


def _floor(true: Sequence[str]) -> float:
    """The smallest word error rate of one text that is said whatever is heard, among the empty one
    and some of those that are true."""
    texts = ["", *sorted(set(true))[:50]]
    return min(text_errors([text] * len(true), true).rate for text in texts)


def _picture(heard: Hearer, part: Corpus, k: int, words: Sequence[Word], said: str) -> Any:
    from .word_times import forced

    memory = memory_of(heard, part, [k])
    ids = heard.encoded(said)
    maps = None
    if has_maps(heard.model) and ids:
        _, drawn, sizes = forced(heard.model, memory, heard.tokens, [ids], "layers")
        maps = drawn[0].mean(0)[: int(sizes[0])].numpy()
    one = part.utterances[k]
    return figures.heard(f"heard-{k}", one.samples(), words, one.words, maps, f"{one.name}: {said}")
