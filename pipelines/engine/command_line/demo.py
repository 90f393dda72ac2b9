"""`make demo`: every pipeline on its built-in sample, and one index page of the reports."""

import html
import sys
import time
from pathlib import Path

from ....base.files import read_json, write_text
from ... import TASKS, load_task
from . import parse, run_verb


def demo(folder: Path) -> Path:
    """Run every task into `folder`; returns the index page."""
    rows = []
    for name in TASKS:
        task = load_task(name)
        run_verb(task, "train", parse(task, "train", [], values={"run": folder / name}))
        headline = read_json(folder / name / "card.json")["headline"]
        link = f'<a href="{name}/report.html">{name}</a>'
        rows.append(
            f"<tr><td>{link}</td><td>{html.escape(task.summary)}</td><td>{html.escape(headline)}</td></tr>"
        )
    page = folder / "index.html"
    write_text(
        page,
        (
            '<!doctype html><meta charset="utf-8"><title>Headwise</title>'
            "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
            "padding:0 1rem}"
            "td{padding:.4rem .8rem;border-bottom:1px solid #e5e7eb;vertical-align:top}</style>"
            "<h1>Headwise: every pipeline on its generated sample</h1><table>"
            + "".join(rows)
            + "</table>\n"
        ),
    )
    return page


if __name__ == "__main__":
    where = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    print(f"index {demo(where)}")
