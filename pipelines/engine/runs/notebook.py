"""What a notebook shows for a run: its headline, its figures, and where its report is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from ....base.errors import InputError, one_line

if TYPE_CHECKING:
    from .run_directory import RunDirectory

_ROWS = 30  # of the table of figures


def run_html(run: RunDirectory) -> str:
    """A run as HTML; what comes from its files is escaped. Never raises for a damaged run."""
    try:
        title = f"{run.environment().get('task', 'run')}: {run.path}"
    except InputError:
        title = str(run.path)
    parts = [f"<b>{escape(title)}</b>"]
    try:
        metrics = run.metrics()
        if headline := run.card().get("headline"):
            parts.append(f"<p>{escape(one_line(headline))}</p>")
    except InputError:
        parts.append("<p>not finished, or damaged</p>")
    else:
        parts.append(figures_html(metrics))
    report = run.path / "report.html"
    if report.is_file():
        link = escape(report.resolve().as_uri(), quote=True)
        parts.append(f'<p><a href="{link}">{escape(str(report))}</a></p>')
    return "<div>" + "".join(parts) + "</div>"


def figures_html(figures: Mapping[str, object]) -> str:
    """Named figures as a table, those within others as "outer: inner"; lists are left out."""
    cells = [(name, value) for name, value in _flat(figures, "") if not isinstance(value, list)]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_number(value))}</td></tr>"
        for name, value in cells[:_ROWS]
    )
    more = f"<p>and {len(cells) - _ROWS} more in metrics.json</p>" if len(cells) > _ROWS else ""
    return f"<table>{rows}</table>{more}"


def _flat(figures: Mapping[str, object], before: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in figures.items():
        inner = f"{before}{name}"
        pairs += _flat(value, f"{inner}: ") if isinstance(value, Mapping) else [(inner, value)]
    return pairs


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else one_line(value)[:200]
