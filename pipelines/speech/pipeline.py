"""Speech to text: transcripts and word times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.speech.generate import write_sample_speech
from ...data.speech.manifests import Utterance, stretch_name
from ...data.speech.tokens import TextTokens
from ...models.speech.speech_to_text import SpeechToText
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import (
    Calibration,
    Context,
    ExportInputs,
    FreeAxes,
    Member,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.training.counts import factor
from ..engine.training.order import Batch
from ..engine.training.wrapped import call
from . import pretrained
from .augment import augment
from .data import (
    Recordings,
    SpeechSpec,
    TrainingRecordings,
    list_with_text,
    rows_that_fit,
    seconds_of,
    spec_from_scratch,
    tokens_of_run,
)
from .items import list_items
from .options import SpeechOptions, SpeechPredictOptions
from .outputs import WRITERS, transcript_lines
from .parts import members_of, split_recordings
from .places import PLACES, mechanism_of
from .prediction import SCHEMA, SpeechItem, predict_recordings
from .rungs import SpeechRungs
from .scoring import review_recordings, words_of_known_texts
from .transcriber import Transcriber
from .word_times import MOST_LAG, fitted_lag

LAG_RECORDINGS = 64  # of the validation part, on which the lag of the maps is fitted


class SpeechPipeline(
    Pipeline[SpeechOptions, SpeechSpec, SpeechPredictOptions, Recordings, SpeechItem]
):
    """Recordings to text, with word times from the cross-attention."""

    monitor = "loss"
    spec_class = SpeechSpec

    def write_sample(self, folder: Path) -> Path:
        """Write recordings of generated tones in place of spoken digits, with exact word times."""
        return write_sample_speech(folder)

    def open_data(
        self, options: SpeechOptions, spec: SpeechSpec | None = None, *, as_test: bool = False
    ) -> Splits[SpeechSpec, Recordings]:
        """List the recordings with text, make or read the tokens, split by speaker.

        as_test: all recordings are `test`, or those of the test part if the data names one.
        """
        if options.data is None:
            raise ValueError("speech: needs data")
        utterances = list_with_text(options.data, options.columns)
        seconds = seconds_of(utterances)
        known_spec, tokens = _spec_and_tokens(options, spec, utterances, seconds)
        rows = rows_that_fit(options.data, known_spec, tokens, utterances, seconds)
        utterances = [utterances[row] for row in rows]
        seconds = [seconds[row] for row in rows]

        def part(kind: type[Recordings], chosen: Iterable[int]) -> Recordings:
            return kind.of(known_spec, tokens, utterances, seconds, chosen)

        if as_test:
            every_row = range(len(utterances))
            named = [row for row in every_row if utterances[row].part == "test"]
            tested = part(Recordings, named or every_row)
            members = members_of({"test": tested})
            return Splits(tested, tested, tested, known_spec, members=members)
        subsets = split_recordings(options, utterances)
        text = tokens.to_json()
        train = part(TrainingRecordings, subsets.train)
        validation, test = (part(Recordings, rows) for rows in subsets[1:])
        return Splits(
            train,
            validation,
            test,
            known_spec if known_spec.parts else replace(known_spec, parts=subsets.sizes()),
            assets={"tokenizer.json": lambda path: path.write_text(text, encoding="utf-8")},
            members=members_of({"train": train, "validation": validation, "test": test}),
        )

    def build_model(self, options: SpeechOptions, spec: SpeechSpec) -> SpeechToText:
        """Encoder and decoder; the sizes of adopted weights come from the spec."""
        ctc, dropout = options.ctc > 0, options.dropout
        if spec.sizes is not None:
            return SpeechToText(**spec.sizes, dropout=dropout, ctc=ctc)
        moe = {"experts": options.experts, "active": options.active, "balance": options.balance}
        return SpeechToText(
            spec.vocabulary,
            features=options.features,
            width=options.width,
            heads=options.heads,
            encoder_layers=options.encoder_layers,
            decoder_layers=options.decoder_layers,
            audio_positions=options.audio_positions,
            text_positions=options.text_positions,
            hidden=options.hidden,
            encoder=options.encoder,
            kernel=options.kernel,
            **{place: mechanism_of(options, place) for place in PLACES},
            options={options.attention: mechanism_options(options)},
            ffn=options.ffn,
            dropout=dropout,
            moe=moe if options.ffn == "moe" else None,
            ctc=ctc,
        )

    def load_initial_weights(
        self, model: nn.Module, options: SpeechOptions, spec: SpeechSpec
    ) -> None:
        """Whisper's weights, for a training with --weights."""
        if options.weights is not None:
            pretrained.load_pretrained(model, options.weights)

    def loss(self, model: nn.Module, batch: Batch, options: SpeechOptions) -> Tensor:
        """Label-smoothed cross-entropy of each token, and connectionist temporal classification
        (CTC) of the encoder's states, weighted by --ctc.
        """
        features = batch["features"]
        if model.training:
            features = augment(features, batch["frames"], options)
        read = call(model, _read_batch, features, batch, with_ctc=bool(options.ctc))
        tokens, present = _expected(batch)
        entropy = F.cross_entropy(
            read.logits.float().flatten(0, 1),
            tokens.masked_fill(~present, -100).flatten(),
            label_smoothing=options.smoothing,
        ) * factor(batch, "tokens")
        if read.ctc is None:
            return entropy
        states, sizes = (batch["frames"] + 1) // 2, present.sum(1) - 1
        scores = read.ctc.float().log_softmax(-1).transpose(0, 1)
        blank = scores.shape[-1] - 1
        ctc = F.ctc_loss(scores, tokens, states, sizes, blank=blank, zero_infinity=True)
        return (1 - options.ctc) * entropy + options.ctc * ctc

    def counts(self, batch: Batch, options: SpeechOptions) -> Mapping[str, Tensor]:
        """The tokens that should come."""
        return {"tokens": _expected(batch)[1].sum()}

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: SpeechOptions
    ) -> dict[str, float]:
        """Mean cross-entropy of a token, and the share of tokens that are the likeliest after the
        true ones before them.
        """
        total = right = count = 0.0
        for batch in batches:
            logits = call(model, _read_batch, batch["features"], batch, with_ctc=False).logits
            logits, (tokens, present) = logits.float(), _expected(batch)
            scores = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
            total -= float(scores[present].double().sum())
            right += float((logits.argmax(-1) == tokens)[present].sum())
            count += float(present.sum())
        return {"loss": total / count, "token_accuracy": right / count}

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[SpeechSpec, Recordings],
        options: SpeechOptions,
        device: torch.device,
    ) -> Calibration:
        """The lag of the attention, fitted on words of the validation part with known times;
        without any, Whisper's for its weights and otherwise 0.
        """
        part = splits.validation
        rows = [row for row, utterance in enumerate(part.utterances) if utterance.words]
        rows = rows[:LAG_RECORDINGS]
        transcriber = Transcriber(cast(SpeechToText, model), part.tokens, splits.spec, 0, device)
        if not rows or not transcriber.model.decoder.has_attention_weights:
            return {"lag": torch.tensor(pretrained.LAG if splits.spec.whole_window else 0)}
        lag = fitted_lag(
            words_of_known_texts(transcriber, part, rows, range(MOST_LAG + 1)).__getitem__,
            [part.utterances[row].words or () for row in rows],
        )
        return {"lag": torch.tensor(lag)}

    def check_run(self, spec: SpeechSpec, calibration: Calibration) -> None:
        """The lag must be one number."""
        if "lag" not in calibration or calibration["lag"].numel() != 1:
            raise InputError("calibration.safetensors holds no lag")

    def rungs(self, spec: SpeechSpec) -> SpeechRungs | None:
        """The same text for all, beside a model that was trained from scratch; none for adopted
        weights, whose publisher has compared them.
        """
        return None if spec.sizes is not None else SpeechRungs()

    def review(
        self, model: nn.Module, dataset: Recordings, context: Context[SpeechOptions, SpeechSpec]
    ) -> Review:
        """Error rates with intervals by speaker, errors of word times, figures of recordings."""
        lag = int(context.calibration["lag"])
        transcriber = Transcriber(
            cast(SpeechToText, model), dataset.tokens, context.spec, lag, context.device
        )
        return review_recordings(transcriber, dataset, context.options.seed)

    def export_example(
        self, model: nn.Module, splits: Splits[SpeechSpec, Recordings]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Features and tokens of two recordings, cut to one length; the number of recordings is
        free.
        """
        part = splits.test
        batch = part.__getitems__([0, len(part) - 1])
        frames, tokens = int(batch["frames"].min()), int(batch["sizes"].min())
        recordings = torch.export.Dim("recordings", min=1)
        inputs = batch["features"][:, :, :frames], batch["tokens"][:, :tokens]
        return inputs, ({0: recordings}, {0: recordings})

    def list_items(self, options: SpeechPredictOptions, spec: SpeechSpec) -> Sequence[SpeechItem]:
        """The recordings of --input, or stretches of them."""
        return list_items(options)

    def prediction_schema(self, options: SpeechPredictOptions, spec: SpeechSpec) -> Schema:
        """text; seconds: length of the recording; words: list of word, start, end (seconds) and
        confidence; log_probability: mean over the tokens; no_speech: largest probability that
        nobody speaks in a window; channel: from 1, null for all; remarks: what may be wrong.
        """
        return SCHEMA

    def predict(
        self,
        model: nn.Module,
        items: Sequence[SpeechItem],
        context: Context[SpeechPredictOptions, SpeechSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each recording, and the other files that are asked for."""
        return predict_recordings(Transcriber.of_run(model, context), items, context.options)

    def further_outputs(self) -> Mapping[str, Callable[[pl.LazyFrame, Path], None]]:
        """Subtitles and files of words, by the ending of --output."""
        return WRITERS

    def answer_lines(self, rows: pl.DataFrame, spec: SpeechSpec) -> list[str]:
        """The transcript, and the remarks on it."""
        return transcript_lines(rows)

    def member(self, item: SpeechItem) -> Member:
        """The recording, or the stretch of it."""
        return Member(item["file"], stretch_name(item["start"], item["end"]))


def _spec_and_tokens(
    options: SpeechOptions,
    spec: SpeechSpec | None,
    utterances: Sequence[Utterance],
    seconds: Sequence[float],
) -> tuple[SpeechSpec, TextTokens]:
    """Those of a run that was opened, of pretrained weights, or of a new model."""
    if spec is not None:
        return spec, tokens_of_run(spec)
    if options.weights is not None:
        return pretrained.open_pretrained(options.weights, options)[:2]
    return spec_from_scratch(options, [utterance.text or "" for utterance in utterances], seconds)


class _ReadBatch(NamedTuple):
    """What the model gives for a batch.

    logits: (B, I, V), of the tokens after the prompt. ctc: (B, N, V + 1), scores of the encoder's
    states, or None.
    """

    logits: Tensor
    ctc: Tensor | None


def _read_batch(
    model: SpeechToText, features: Tensor, batch: Batch, *, with_ctc: bool
) -> _ReadBatch:
    memory = model.encode(features, batch.get("lengths"))
    tokens, start = batch["tokens"], int(batch["prompt"][0])
    mask = _token_mask(batch)[:, :-1]
    logits = model.decoder(tokens[:, :-1], memory, mask=mask).logits[:, start - 1 :]
    ctc = None if model.ctc is None or not with_ctc else model.ctc(memory.states)
    return _ReadBatch(logits, ctc)


def _token_mask(batch: Batch) -> Tensor:
    """Which tokens are no padding, bool (B, tokens)."""
    tokens = batch["tokens"]
    return torch.arange(tokens.shape[1], device=tokens.device) < batch["sizes"][:, None]


def _expected(batch: Batch) -> tuple[Tensor, Tensor]:
    """The tokens that should come after the prompt, with the end, (B, I), and which of them are no
    padding, bool (B, I).
    """
    start = int(batch["prompt"][0])
    return batch["tokens"][:, start:], _token_mask(batch)[:, start:]
