"""The verb sinks: which tokens draw attention without saying anything, and what writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import polars as pl
import torch
from torch import nn

from ....base.account import note, opened
from ....base.errors import InputError
from ....base.files import clear_below, write_aside
from ....models.language.analysis.sink_kinds import Sink, TextFigures, find_sinks, official_sinks
from ....models.language.analysis.sinks import Removal, measure_sinks, removal_test
from ...engine.accounts import publish
from ...engine.command_line import machine
from ...engine.command_line.terminal import say
from ...engine.experiments.jobs import claimed, fingerprint_of, run_jobs
from ...engine.inference.output import refuse_input_as_output
from ...engine.opened_models import model_of, open_base
from ...engine.pipeline import Review
from ...engine.runs.loaded import pick_device
from ...engine.runs.report import write_page
from ..data import Coder
from .options_attention import LEAST_TOKENS, SinksOptions, check_attention
from .prompts_to_score import texts_or_prompts
from .sinks_tables import LAYER_SCHEMA, SINK_SCHEMA, headline, pictures, sink_counts, text_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ....models.language.opening import OpenedLanguageModel
    from ...engine.pipeline import AnyPipeline

INSIDE, PAGE, ACCOUNT = "measured", "report.html", "account.json"
FREE = ("data", "output", "accept", "accelerator", "texts")  # options that no text depends on
STRETCH = 1000  # characters of a text that are coded at once
SHOWN = 60  # rows of sinks on the page


@dataclass(frozen=True)
class MeasuredSinks:
    """What `sinks` wrote. texts: pieces that were measured."""

    output: Path
    texts: int
    sentence: str

    def table(self) -> pl.DataFrame:
        """A row for each sink of each piece."""
        return pl.read_parquet(self.output / "sinks.parquet", glob=False)


class Measured(TypedDict):
    """Of one piece: rows of the tables of sinks and of layers."""

    sinks: list[dict[str, object]]
    layers: list[dict[str, object]]


@dataclass(frozen=True)
class Piece:
    """A piece of a text. name: where it is from; ids: its tokens."""

    name: str
    ids: tuple[int, ...]


def sinks(pipeline: AnyPipeline, options: SinksOptions) -> MeasuredSinks:
    """Measure the sinks of each piece of the texts, and write tables, pictures and report.html into
    --output.

    Raises `InputError` for a model or texts that cannot be used.
    """
    check_attention(options)
    output = Path(options.output)
    if options.data is not None:
        refuse_input_as_output(output, [options.data])
    with opened(options.accept) as account:
        base = open_base(model_of(options.model))
        coder = Coder(base.tokenizer)
        pieces = pieces_to_measure(options, coder, base)
        publish(account)
        with claimed(output, INSIDE) as home:
            clear_below(output)
            nn.Module.to(base.model, pick_device(options.accelerator))
            records = run_jobs(
                {_name(piece): piece for piece in pieces},
                lambda piece: measure_piece(base.model, coder, piece, options),
                home,
                fingerprint_of(options, {"weights": base.sha256}, FREE),
                title="sinks",
                unit="text",
                called="texts",
            )
            sinks_table = pl.DataFrame(
                [row for record in records.values() for row in record["sinks"]], schema=SINK_SCHEMA
            )
            layers_table = pl.DataFrame(
                [row for record in records.values() for row in record["layers"]],
                schema=LAYER_SCHEMA,
            )
            sentence = headline(sinks_table, layers_table, len(pieces))
            _write(pipeline, options, base, sentence, sinks_table, layers_table)
            publish(account, output / ACCOUNT, shown=False)
    say(sentence)
    say(f"report {output / PAGE}")
    return MeasuredSinks(output, len(pieces), sentence)


def _name(piece: Piece) -> str:
    """The name of a piece's file: the same piece again is not measured again."""
    return f"text-{hashlib.sha256(repr(piece.ids).encode()).hexdigest()[:16]}"


def pieces_to_measure(
    options: SinksOptions, coder: Coder, model: OpenedLanguageModel
) -> list[Piece]:
    """Pieces of the texts in turn: the first of every text, then the second, and so on."""
    if options.length > model.facts.positions:
        raise InputError(
            f"--length {options.length}: more than the {model.facts.positions:,} positions of "
            f"{model.name}"
        )
    begin = coder.code("")  # what the model begins every text with, if anything
    room = options.length - len(begin)
    by_text, short = list[list[Piece]](), 0
    for prompt in texts_or_prompts(options.data, options.columns).prompts:
        ids = _tokens(coder, prompt.text, options.texts * room)
        starts = range(0, len(ids), room)
        pieces = [
            Piece(
                prompt.id if len(starts) == 1 else f"{prompt.id}, from token {start}",
                (*begin, *ids[start : start + room]),
            )
            for start in starts
            if len(begin) + len(ids[start : start + room]) >= LEAST_TOKENS
        ]
        short += not pieces
        by_text.append(pieces)
    if short:
        note("left out", f"texts of fewer than {LEAST_TOKENS} tokens", count=short)
    most = max(map(len, by_text), default=0)
    turns = [pieces[turn] for turn in range(most) for pieces in by_text if turn < len(pieces)]
    if not turns:
        raise InputError(f"no text has {LEAST_TOKENS} tokens, as many as are needed to see sinks")
    unlike = list({piece.ids: piece for piece in reversed(turns)}.values())[::-1]
    if len(unlike) > options.texts:
        note("left out", f"pieces of texts beyond --texts {options.texts}",
             count=len(unlike) - options.texts)  # fmt: skip
    return unlike[: options.texts]


def _tokens(coder: Coder, text: str, most: int) -> list[int]:
    """The first tokens of a text, at least `most` where it has so many: of a book, a few pages."""
    ids, start = list[int](), 0
    while start < len(text) and len(ids) < most:
        end = start + STRETCH
        if end < len(text):  # before a space, which belongs to the word after it
            space = text.rfind(" ", start + 1, end)
            end = space if space > 0 else end
        ids += coder.code_on(text[start:end])
        start = end
    return ids


def measure_piece(
    model: PreTrainedModel, coder: Coder, piece: Piece, options: SinksOptions
) -> Measured:
    """The rows of a piece; its strongest sinks are tested by removal."""
    ids = torch.tensor(piece.ids, device=model.device)
    figures = measure_sinks(model, ids[None])[0]
    sinks_of_text = find_sinks(figures, options.mass)
    tested = [sink for sink in sinks_of_text if sink.writer is not None]
    tested = sorted(tested, key=lambda sink: -sink.mass)[: options.removals]
    rows = []
    for sink in sinks_of_text:
        row = _sink_row(piece, coder, figures, sink)
        if sink in tested:
            row |= _removed(removal_test(model, ids, figures, sink))
        rows.append(row)
    return {"sinks": rows, "layers": _layer_rows(piece, figures, sinks_of_text)}


def _removed(removal: Removal | None) -> dict[str, object]:
    if removal is None:
        return {}
    return {
        "mass_tested": removal.mass,
        "mass_removed": removal.without,
        "order_of_others": removal.order,
        "layers_removed": list(removal.layers),
    }


def _sink_row(piece: Piece, coder: Coder, figures: TextFigures, sink: Sink) -> dict[str, object]:
    place, writer = sink.place, sink.writer
    row: dict[str, object] = {
        "text": piece.name,
        "place": place,
        "token": coder.tokenizer.decode([piece.ids[place]]),
        "kind": sink.kind,
        "mass": sink.mass,
        "first_layer": sink.drawing[0],
        "last_layer": sink.drawing[-1],
        "layers": len(sink.drawing),
        "norm": float(figures.relative_norm[:, place].max()),
    }
    if sink.carrying:
        first, last = sink.carrying[0], sink.carrying[-1]
        row |= {
            "first_carrying": first,
            "last_carrying": last,
            "cosine": float(figures.centred[first : last + 1, place].max()),
        }
    if writer is not None:
        ordinary = figures.mlp_norm[writer].median().clamp(min=1e-30)
        row |= {
            "writer": writer,
            "mlp_norm": float(figures.mlp_norm[writer, place] / ordinary),
            "mlp_cosine": float(figures.mlp_cosine[writer, place]),
            "mlp_share": float(figures.mlp_share[writer, place]),
        }
    return row


def _layer_rows(
    piece: Piece, figures: TextFigures, sinks_of_text: Sequence[Sink]
) -> list[dict[str, object]]:
    """A row for each layer: what the sinks of each kind draw together, and how long they are."""
    by_rule = official_sinks(figures)
    reference = figures.reference
    rows: list[dict[str, object]] = []
    for layer in range(len(figures.norm)):
        drawn = {
            f"mass_{kind}": float(
                sum(
                    float(figures.mass[layer, sink.place])
                    for sink in sinks_of_text
                    if sink.kind == kind and sink.place != reference
                )
            )
            for kind in ("secondary", "companion", "early", "other")
        }
        early = [s.place for s in sinks_of_text if s.kind == "early"]
        values = figures.value_norm[layer]
        rows.append(
            {
                "text": piece.name,
                "layer": layer,
                "mass_primary": float(figures.mass[layer, reference]),
                **drawn,
                "norm_primary": float(figures.relative_norm[layer, reference]),
                "norm_early": float(figures.relative_norm[layer, early].max()) if early else None,
                "mlp_share_primary": float(figures.mlp_share[layer, reference]),
                "value_primary": float(values[reference] / values.median().clamp(min=1e-30)),
                "cosine_median": float(figures.cosine[layer].median()),
                "centred_median": float(figures.centred[layer].median()),
                "tokens": figures.norm.shape[1],
                "official_start": by_rule.window[0],
                "official_end": by_rule.window[1],
                "official_secondary": len(by_rule.of_kind("secondary")),
                "official_like_primary": len(by_rule.of_kind("bos_sink")),
                "official_can_fire": by_rule.can_fire,
            }
        )
    return rows


def _write(
    pipeline: AnyPipeline,
    options: SinksOptions,
    base: OpenedLanguageModel,
    sentence: str,
    sinks_table: pl.DataFrame,
    layers_table: pl.DataFrame,
) -> None:
    """Tables, pictures and page."""
    output = Path(options.output)
    flat = sinks_table.with_columns(
        pl.col("layers_removed").cast(pl.List(pl.String)).list.join(" ")
    )
    for name, table, plain in (
        ("sinks", sinks_table, flat), ("layers", layers_table, layers_table),
    ):  # fmt: skip
        write_aside(output / f"{name}.parquet", table.write_parquet)
        write_aside(output / f"{name}.csv", plain.write_csv)
    shown: Mapping[str, pl.DataFrame] = {
        "Sinks by kind": sink_counts(sinks_table),
        "The published rule beside ours, by text": text_table(sinks_table, layers_table),
        "The strongest sinks": flat.sort("mass", descending=True).head(SHOWN),
    }
    write_page(
        output / PAGE,
        output / "figures",
        pipeline,
        Review({}, sentence, pictures(sinks_table, layers_table), shown),
        data=options.data or "Python's documentation",
        run=base.name,
        options=asdict(options),
        facts=machine.environment(pipeline.task.name, 0, options.accelerator, 1),
    )
