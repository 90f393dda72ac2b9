"""What human raters of topics answered: agreement, accuracy, d' and bias, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import Account, note, opened
from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ....data.texts.topic_answers import Ratings, read_answers
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...figures.style import save_png
from ...metrics.agreement import Score
from ..topics.figures import scores_figure
from ..topics.pages import as_json, results_folder, terminal_table, with_interval, write_summary
from ..topics.raters import RatedKind, machine_scores, merged_name, rate_kind, size_correlation
from ..topics.word_vectors import WordVectors, open_vectors
from .options_topics import CORPUS, NO_VECTORS, TopicAgreementOptions, check_topics

SCORES, MODELS, ANNOTATORS, PICTURE = "scores.json", "models.csv", "annotators.csv", "models.png"
EXPLAINED = (
    "Intervals of 95 % by a bootstrap over tasks. Agreement without the controls; kappa is that of "
    "Cohen, of pairs of annotators. Mixing: hit, mixed sets called two; false alarm, single sets "
    "called two; f1 of mixed; d_prime = z(H) - z(F) and criterion = -(z(H) + z(F)) / 2 with "
    "H = (hits + 0.5) / (mixed + 1), F = (false alarms + 0.5) / (single + 1). A positive criterion "
    "means that two is seldom said; d_prime is free of that."
)
NUMBERS = {"hit_rate": "hit", "false_alarm_rate": "false alarm"}


@dataclass(frozen=True)
class RatersReport:
    """What `topics agreement` found. kinds: by intrusion, mixing or names; machine: scores of
    machine raters by kind; tables: what is printed, by title; output: None if nothing was written.
    """

    kinds: Mapping[str, RatedKind]
    machine: Mapping[str, Mapping[str, Score]]
    tables: Mapping[str, pl.DataFrame]
    output: Path | None


def agreement(options: TopicAgreementOptions) -> RatersReport:
    """Score the answers of raters; prints tables and writes --output if it is asked.

    Raises `InputError` for tables and options that cannot be used.
    """
    check_topics(options)
    read = [*options.answers, *options.key]
    names = (SCORES, MODELS, ANNOTATORS, PICTURE)
    folder = (
        nullcontext(None)
        if options.output is None
        else results_folder(options.output, names, overwrite=options.overwrite, read=read)
    )
    with opened() as account, folder as home:
        ratings = read_answers(options.answers, options.key)
        if not any(part.answers for part in ratings):
            raise InputError(f"--answers {options.answers[0]}: holds no answer; all are blank")
        kinds = {part.kind: _rated(part, options) for part in ratings if part.answers}
        vectors = _vectors(options, ratings)
        machine: dict[str, dict[str, Score]] = {}
        counts: dict[str, int] = {}
        if vectors is not None:
            for part in ratings:
                machine[part.kind], counts[part.kind] = machine_scores(part, vectors, options.seed)
        tables = _tables(kinds, machine, counts)
        notes = _notes(kinds, vectors)
        publish(account)
        if home is not None:
            _write(home, kinds, machine, tables, notes, account)
    for title, table in tables.items():
        say(f"{title}:")
        for line in terminal_table(table):
            say(f"  {line}")
    for line in notes:
        say(line)
    return RatersReport(
        kinds, machine, tables, None if options.output is None else Path(options.output)
    )


def _rated(part: Ratings, options: TopicAgreementOptions) -> RatedKind:
    models = {task.model for task in part.tasks.values() if task.model and not task.control}
    merged = {merged_name(model) for model in models}
    if options.merge_sizes and len(merged) < len(models):
        what = "models whose names differ by a number at the end are one (--no-merge-sizes)"
        note("assumed", what)
    if not models and part.kind != "names":
        note("assumed", f"all tasks ({part.kind}) are of one model: name the key with --key")
    return rate_kind(part, merge_sizes=options.merge_sizes, draws=options.draws, seed=options.seed)


def _vectors(options: TopicAgreementOptions, ratings: Sequence[Ratings]) -> WordVectors | None:
    if options.vectors == NO_VECTORS:
        return None
    if options.vectors == CORPUS:
        raise InputError("--vectors corpus: there is no corpus here; name a file of word vectors")
    words = {word for part in ratings for task in part.tasks.values() for word in task.words}
    return open_vectors(options.vectors, words, None)


def _tables(
    kinds: Mapping[str, RatedKind],
    machine: Mapping[str, Mapping[str, Score]],
    counts: Mapping[str, int],
) -> dict[str, pl.DataFrame]:
    tables = {"Agreement": pl.DataFrame([_agreement_row(rated) for rated in kinds.values()])}
    if models := _model_rows(kinds):
        tables["Models"] = pl.DataFrame(models)
    for kind, rated in kinds.items():
        rows = [
            {"annotator": name, **row, "answers": int(row["answers"])}
            for name, row in rated.by_annotator.items()
        ]
        tables[f"Annotators ({kind})"] = pl.DataFrame(rows).fill_nan(None)
    rows = [
        {"kind": kind, "tasks": counts[kind], "score": name, "value": with_interval(score)}
        for kind, scores in machine.items()
        for name, score in scores.items()
    ]
    if rows:
        tables["Machine raters"] = pl.DataFrame(rows)
    return tables


def _agreement_row(rated: RatedKind) -> dict[str, object]:
    kappas = rated.kappas[np.isfinite(rated.kappas)]
    between = f"{kappas.min():.3f} to {kappas.max():.3f}" if len(kappas) else "–"
    return {
        "kind": rated.kind,
        "tasks": rated.tasks,
        "annotators": len(rated.annotators),
        "answers": rated.answers,
        "alpha": with_interval(rated.agreement["alpha"]),
        "fleiss": f"{rated.agreement['fleiss_kappa'].value:.3f}",
        "pairwise": f"{rated.agreement['pairwise_agreement'].value:.3f}",
        "kappa of pairs": between,
        "controls right": with_interval(rated.controls),
    }


def _model_rows(kinds: Mapping[str, RatedKind]) -> list[dict[str, object]]:
    """A row for each family of models: accuracy of intrusion, detection of mixing."""
    names = dict.fromkeys(name for rated in kinds.values() for name in rated.by_family)
    rows = []
    for name in names:
        row: dict[str, object] = {"model": name}
        for kind, rated in kinds.items():
            scores = rated.by_family.get(name, {})
            if kind != "mixing":
                title = "intrusion accuracy" if kind == "intrusion" else "accuracy"
                row[title] = with_interval(scores["accuracy"]) if scores else None
                continue
            for score in ("hit_rate", "false_alarm_rate", "f1", "macro_f1"):
                title = NUMBERS.get(score, score)
                row[title] = scores[score].value if scores else None
            row["d_prime"] = with_interval(scores["d_prime"]) if scores else None
            row["criterion"] = scores["criterion"].value if scores else None
        rows.append(row)
    return rows


def _notes(kinds: Mapping[str, RatedKind], vectors: WordVectors | None) -> list[str]:
    notes = [EXPLAINED]
    if "intrusion" in kinds and "mixing" in kinds:
        value, count = size_correlation(kinds["intrusion"], kinds["mixing"])
        if value == value:
            notes.append(
                f"Over {count} models, Spearman's correlation of intrusion accuracy with hit rate "
                f"minus false alarm rate of mixing is {value:.2f}."
            )
    if vectors is not None:
        notes.append(f"Machine raters by {vectors.what}.")
    return notes


def _write(
    home: Path,
    kinds: Mapping[str, RatedKind],
    machine: Mapping[str, Mapping[str, Score]],
    tables: Mapping[str, pl.DataFrame],
    notes: Sequence[str],
    account: Account,
) -> None:
    write_json(
        home / SCORES,
        {kind: _kind_json(rated) for kind, rated in kinds.items()}
        | (
            {"machine": {kind: as_json(scores) for kind, scores in machine.items()}}
            if machine
            else {}
        ),
    )
    rows = [
        {"kind": kind, "level": level, "model": model, "score": name, **score._asdict()}
        for kind, rated in kinds.items()
        for level, models in (("family", rated.by_family), ("model", rated.by_model))
        for model, scores in models.items()
        for name, score in scores.items()
    ]
    schema = {
        **dict.fromkeys(("kind", "level", "model", "score"), pl.String),
        **dict.fromkeys(("value", "low", "high"), pl.Float64),
    }
    write_aside(home / MODELS, pl.DataFrame(rows, schema=schema).fill_nan(None).write_csv)
    annotators = [
        {"kind": kind, "annotator": name, **row}
        for kind, rated in kinds.items()
        for name, row in rated.by_annotator.items()
    ]
    table = pl.DataFrame(annotators, infer_schema_length=None).fill_nan(None)
    write_aside(home / ANNOTATORS, table.write_csv)
    picture = _picture(kinds)
    if picture is not None:
        save_png(scores_figure(*picture), home / PICTURE)
    write_summary(
        home,
        "Raters of topics",
        tables,
        notes=notes,
        picture=None if picture is None else PICTURE,
        account=account,
    )


def _kind_json(rated: RatedKind) -> dict[str, object]:
    return {
        "tasks": rated.tasks,
        "answers": rated.answers,
        "annotators": list(rated.annotators),
        "agreement": as_json(rated.agreement),
        "kappas": rated.kappas.tolist(),
        "controls": as_json({"accuracy": rated.controls})["accuracy"],
        "families": {model: as_json(scores) for model, scores in rated.by_family.items()},
        "models": {model: as_json(scores) for model, scores in rated.by_model.items()},
        "annotator_scores": {name: dict(row) for name, row in rated.by_annotator.items()},
    }


def _picture(
    kinds: Mapping[str, RatedKind],
) -> tuple[list[str], dict[str, list[Score]], dict[str, float]] | None:
    """Families, panels of their scores and chance levels; None where no model is known."""
    names = list(dict.fromkeys(name for rated in kinds.values() for name in rated.by_family))
    if not names:
        return None
    of_kind = {"mixing": ("d_prime", "macro_f1", "criterion")}
    nothing = Score(float("nan"), float("nan"), float("nan"))
    panels = {
        f"{kind}: {score}": [rated.by_family.get(name, {}).get(score, nothing) for name in names]
        for kind, rated in kinds.items()
        for score in of_kind.get(kind, ("accuracy",))
    }
    chance = {"mixing: d_prime": 0.0, "mixing: criterion": 0.0, "intrusion: accuracy": 0.2}
    return names, panels, chance
