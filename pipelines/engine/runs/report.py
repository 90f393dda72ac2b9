"""The report of a run: one HTML file that needs nothing else, and its figures as PNG files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jinja2
import polars as pl

from ....base.files import write_aside, write_text
from ..accounts import CAPTION, account_table
from ..pipeline import AnyPipeline, ReportFigure, Review
from .run_directory import ACCOUNT, RunDirectory


def write_report(
    run: RunDirectory, pipeline: AnyPipeline, review: Review, name: str = "report"
) -> None:
    """Write `figures/*.png` and `report.html` (or another name, for an evaluation)."""
    run.refuse_links()
    prefix = "" if name == "report" else f"{name}-"
    write_sheets(run.path / "tables", review.sheets, prefix)
    for record, rows in review.records.items():
        write_aside(run.path / f"{prefix}{record}.parquet", rows.write_parquet)
    more = _training_figures(run, pipeline.monitor) if name == "report" else []
    options = run.config()
    read = account_table(run.path / (ACCOUNT if name == "report" else f"{name}-{ACCOUNT}"))
    tables = {**({CAPTION: read} if read is not None else {}), **review.tables}
    write_page(
        run.path / f"{name}.html",
        run.figures,
        pipeline,
        replace(review, pictures=[*review.pictures, *more], tables=tables),
        prefix=prefix,
        data=options.get("data") or "the built-in sample, which is generated",
        run=run.path.name,
        options=options,
        facts=run.environment(),
        again=True,
    )


def write_page(
    path: Path,
    figures: Path | None,
    pipeline: AnyPipeline,
    review: Review,
    *,
    data: str,
    run: str,
    options: Mapping[str, object],
    facts: Mapping[str, object],
    prefix: str = "",
    again: bool = False,
) -> None:
    """Write a page at `path` and, where a folder is named, its pictures as
    `figures`/{prefix}NAME.png; again: a config.yaml next to it holds the options."""
    import matplotlib.pyplot as plt

    from ...figures.style import png_of

    page_pictures: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for picture in review.pictures:
        png = png_of(picture.figure)
        plt.close(picture.figure)
        if figures is not None:
            write_aside(figures / f"{prefix}{picture.name}.png", partial(_write, png))
        page_pictures[picture.is_answer].append(
            {"caption": picture.caption, "png": base64.b64encode(png).decode()}
        )
    tables = [
        {
            "caption": caption,
            "columns": table.columns,
            "rows": [[_cell(value) for value in row] for row in table.rows()],
        }
        for caption, table in review.tables.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__ or "", "."), autoescape=True
    )
    html = environment.get_template("report.html.jinja").render(
        title=f"{pipeline.task.name}: {pipeline.task.summary}",
        data=data,
        name=run,
        headline=review.headline,
        tables=tables,
        answers=page_pictures[True],
        pictures=page_pictures[False],
        options=dict(options),
        again=again,
        facts=_flat(dict(facts)),
        intended_use=pipeline.task.intended_use,
    )
    write_text(path, html)


def write_sheets(folder: Path, sheets: Mapping[str, pl.DataFrame], prefix: str = "") -> None:
    """Write each table as NAME.csv, NAME.md and NAME.tex."""
    for name, table in sheets.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(folder / f"{prefix}{name}.csv", table.write_csv)
        write_text(folder / f"{prefix}{name}.md", markdown(table))
        write_text(folder / f"{prefix}{name}.tex", latex(table))


def markdown(table: pl.DataFrame) -> str:
    """A table for a page; numbers with three decimals."""
    rows = [
        table.columns,
        ["---"] * table.width,
        *([_three(cell) for cell in row] for row in table.rows()),
    ]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows
    )


def latex(table: pl.DataFrame) -> str:
    """A table for a paper (booktabs); numbers with three decimals."""
    kinds = "".join("r" if kind.is_numeric() else "l" for kind in table.dtypes)
    rows = [[_escaped(_three(cell)) for cell in row] for row in table.rows()]
    head = " & ".join(map(_escaped, table.columns))
    body = "".join(" & ".join(row) + " \\\\\n" for row in rows)
    return (
        f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _three(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "–" if value is None else str(value)


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _training_figures(run: RunDirectory, monitor: str) -> list[ReportFigure]:
    """The learning curve of all epochs, however often the run was resumed, and the use of its
    experts, if the model has any."""
    from ...figures.training import expert_loads, learning_curve

    if not (run.path / "history.csv").exists():  # nothing was trained
        return []
    history = pl.read_csv(run.path / "history.csv", glob=False)
    pictures = [
        ReportFigure(
            "learning-curve",
            "Training loss (with the model's random draws) and validation score",
            learning_curve(history, monitor),
        )
    ]
    loads = expert_loads(history)
    if loads is not None:
        text = "Load of each expert (areas) and entropy of the router (line), validation part"
        pictures.append(ReportFigure("experts", text, loads))
    return pictures


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.4e}"
    return "–" if value is None else str(value)


def _flat(values: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {name: str(item) for name, item in value.items()}
        else:
            flat[key] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
