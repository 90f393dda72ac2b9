"""The verb explain: what each word adds to a label, as a page, as text and as lines of JSON."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError, printable, reason, shown
from ....base.files import clear_aside, flush, write_json, write_text
from ....base.own_files import ASIDE
from ....data.texts.table import TextTable
from ...engine.accounts import publish
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference.output import refuse_input_as_output
from ...engine.inference.standard_input import STDIN
from ...engine.runs.loaded import Loaded, load_run
from ...engine.runs.paths import homes_of
from ...engine.runs.run_directory import ACCOUNT
from ...engine.training.jobs import with_data
from ...figures.style import png_of
from ..data import TextPart
from ..explanation.check import Checked, check_explanations, check_figure
from ..explanation.pages import Section, json_lines, section, text_lines, write_html
from ..explanation.sums import Explainer, places_of, threshold_of
from ..options import ExplainOptions, TextEvaluateOptions, TextOptions, TextPredictOptions
from ..pipeline import TextPipeline
from ..prediction import coder_of, list_parts, plain_table, read_part
from ..spec import TextSpec

PAGE, LINES, WORDS, CHECK = (
    "index.html", "explanations.jsonl", "explanations.txt", "explain_check.json",
)  # fmt: skip
FILES = {PAGE, LINES, WORDS, CHECK, ACCOUNT}
SHOWN = 10  # lines on the terminal


@dataclass(frozen=True)
class ExplainedTexts:
    """What was written. failed: texts and parts of files without an explanation; error: the largest
    difference between a logit and the sum of its parts; check: None where none was asked for.
    """

    output: Path
    texts: int
    failed: int
    error: float
    check: Checked | None

    def table(self) -> pl.DataFrame:
        """A row for each text and label."""
        return pl.read_ndjson((self.output / LINES).read_bytes(), infer_schema_length=None)


class _Source:
    """The texts to explain: a text, the parts of an input, or a labelled part."""

    def __init__(
        self,
        pipeline: TextPipeline,
        loaded: Loaded[TextOptions, TextSpec],
        options: ExplainOptions,
        aside: Path,
    ) -> None:
        self.spec, self.options, self.part = loaded.spec, options, None
        self.failures: list[str] = []
        if options.check:
            self.part = _labelled(pipeline, loaded, options)
        elif options.input is not None:
            self.reading = TextPredictOptions(
                run=options.run,
                input=options.input,
                output=str(aside / "read"),  # standard input is kept there
                columns=options.columns,
            )
            self.items = list_parts(self.reading, loaded.spec)

    @property
    def count(self) -> int:
        """How many texts there are."""
        if self.options.text is not None:
            return 1
        return len(self.part) if self.part is not None else sum(i["rows"] for i in self.items)

    def tables(self) -> Iterator[tuple[TextTable, int]]:
        """Texts with the row of the first."""
        if self.options.text is not None:
            # Bytes that are no text arrive as halves of pairs.
            text = self.options.text.encode("utf-8", "replace").decode()
            yield self._complete(plain_table([text], ["text"])), 0
        elif self.part is not None:
            yield self.part.table, 0
        else:
            texts = 0
            for item in self.items:
                try:
                    table = self._complete(read_part(item, self.reading, self.spec))
                except ValueError as error:
                    self.failures.append(reason(error))
                    continue
                texts += len(table)
                note("read", "texts", count=texts)
                yield table, item["start"]

    def _complete(self, table: TextTable) -> TextTable:
        lacking = [c["name"] for c in self.spec.table if c["name"] not in table.table.columns]
        if lacking:
            raise InputError(
                f"the run also reads the column {shown(lacking[0])}; give --input with a table"
            )
        return table


def explain(pipeline: TextPipeline, options: ExplainOptions) -> ExplainedTexts:
    """Explain texts; writes index.html, explanations.jsonl, explanations.txt and account.json into
    --output, all at once at the end.
    """
    pipeline.task.check(options)
    output = Path(options.output)
    _refuse_output(output, options)
    loaded = load_run(pipeline, options.run, options.accelerator)
    with opened(options.accept, homes_of(options)) as account:
        clear_aside(output.parent, output.name)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            aside = tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{output.name}", dir=output.parent)
            # That folder is private; one within it is as readable as any of this user.
            folder = Path(aside) / output.name
            folder.mkdir()
        except OSError as error:
            raise InputError(f"{output}: cannot be written ({reason(error)})") from None
        try:
            if options.check and options.input is None:
                account.accept |= set(loaded.options.accept)
            explained = _explained(pipeline, loaded, options, folder)
            publish(account, folder / ACCOUNT)
            _place(folder, output)
        except OSError as error:
            raise InputError(f"{output}: cannot be written ({reason(error)})") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    say(f"{explained.texts:,} texts explained: {output / PAGE}")
    if explained.check is not None:
        say(explained.check.sentence)
    return explained


def _explained(
    pipeline: TextPipeline,
    loaded: Loaded[TextOptions, TextSpec],
    options: ExplainOptions,
    aside: Path,
) -> ExplainedTexts:
    """Write all files but the account into a folder."""
    spec, calibration = loaded.spec, loaded.calibration
    labels, threshold = places_of(options.labels, spec), threshold_of(calibration, spec)
    source, coder = _Source(pipeline, loaded, options, aside), coder_of(spec)
    explainer = Explainer(loaded.model, coder, calibration, loaded.device)
    sections: list[Section] = []
    texts, error = 0, 0.0
    with (
        Progressbar(total=source.count, unit="text", desc="explain") as bar,
        (aside / LINES).open("w", encoding="utf-8") as lines,
        (aside / WORDS).open("w", encoding="utf-8") as words,
    ):
        for table, start in source.tables():
            for explained in explainer.texts(table, labels, options.top, start):
                if isinstance(explained, ValueError):
                    source.failures.append(str(explained))
                    continue
                for row in json_lines(explained, spec, threshold):
                    lines.write(json.dumps(row) + "\n")
                written = text_lines(explained, spec, threshold)
                words.writelines(f"{clear}\n" for clear in written)
                if texts * max(1, len(written)) < SHOWN:
                    for clear in written[:SHOWN]:
                        say(clear)
                if len(sections) < options.show:
                    sections.append(section(explained, spec, threshold))
                texts, error = texts + 1, max(error, explained.error)
                bar.update()
    for failure in source.failures:
        say(f"not explained: {printable(failure)}")
    if not texts:
        why = source.failures[0] if source.failures else "there are no texts"
        raise InputError(f"none of the texts can be explained: {why}")
    if source.failures:
        note("left out", "texts, or parts of files, that cannot be explained", source.failures)
    if texts > len(sections):
        what = f"texts in {PAGE} (--show); all are in {LINES}"
        note("left out", what, count=texts - len(sections))
    checked = _check(loaded, options, explainer, source.part, aside)
    html = write_html(
        sections,
        {"Run": Path(options.run).name, "Predicts": _predictor(loaded)},
        exact=explainer.exact,
        is_divided=explainer.divided is not None,
        left_out=texts - len(sections),
        check=None if checked is None else _check_facts(checked),
    )
    write_text(aside / PAGE, html)
    failed = len(source.failures)
    return ExplainedTexts(Path(options.output), texts, failed, error, checked)


def _check(
    loaded: Loaded[TextOptions, TextSpec],
    options: ExplainOptions,
    explainer: Explainer,
    part: TextPart | None,
    aside: Path,
) -> Checked | None:
    if part is None:
        return None
    linear = None if loaded.ladder is None else loaded.ladder.models.get("simple")
    checked = check_explanations(explainer, part, linear, pairs=options.pairs, seed=options.seed)
    write_json(aside / CHECK, checked.to_json())
    return checked


def _labelled(
    pipeline: TextPipeline, loaded: Loaded[TextOptions, TextSpec], options: ExplainOptions
) -> TextPart:
    """The labelled texts of --input, or the test part of the run's own data."""
    if options.input is None:
        of_run = with_data(pipeline, loaded.options, loaded.run)
        return pipeline.open_data(of_run, loaded.spec).test
    asked = TextEvaluateOptions(run=options.run, data=options.input, columns=options.columns)
    data = pipeline.evaluation_options(asked, loaded.options)
    return pipeline.open_data(data, loaded.spec, as_test=True).test


def _predictor(loaded: Loaded[TextOptions, TextSpec]) -> str:
    if loaded.ladder is None:
        return f"the {loaded.options.model} model"
    return loaded.ladder.words(loaded.ladder.chosen)


def _check_facts(checked: Checked) -> dict[str, object]:
    """What the page shows of a check."""
    table, picture = checked.table(), check_figure(checked)
    return {
        "sentence": checked.sentence,
        "columns": table.columns,
        "rows": table.rows(),
        "caption": picture.caption,
        "png": base64.b64encode(png_of(picture.figure)).decode(),
    }


def _refuse_output(output: Path, options: ExplainOptions) -> None:
    """Raise `InputError` for a place where nothing may be written."""
    if options.input is not None and options.input != STDIN:
        refuse_input_as_output(output, [options.input, options.run])
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder")
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if not names:
        return
    if not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output, or --overwrite")
    if LINES not in names or names - FILES:
        raise InputError(f"{output}: holds other things than explanations; choose another --output")


def _place(folder: Path, output: Path) -> None:
    """Give the finished folder its name, in place of what was there."""
    for file in folder.iterdir():
        if file.name not in FILES:
            file.unlink()  # what was kept of standard input
        else:
            flush(file)
    previous = None
    if output.is_dir():
        previous = tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{output.name}", dir=output.parent)
        os.replace(output, previous)
    os.replace(folder, output)
    flush(output.parent)
    if previous is not None:
        shutil.rmtree(previous, ignore_errors=True)
