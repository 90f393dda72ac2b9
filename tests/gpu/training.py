"""One training step of every pipeline on its generated sample."""

import io
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from headwise import pipelines
from headwise.pipelines import TASKS


def steps(accelerator: str, names: tuple[str, ...] = tuple(TASKS)) -> list[dict]:
    """A row for each pipeline: its seconds, or what was wrong. A loss that is not finite stops a
    training, so that a run that ends has a finite one.
    """
    rows = []
    for name in names:
        start, fault = time.perf_counter(), ""
        silent = io.StringIO()
        with TemporaryDirectory() as folder, redirect_stdout(silent), redirect_stderr(silent):
            try:
                getattr(pipelines, name).train(
                    run=Path(folder) / "run",
                    max_steps=1,
                    accelerator=accelerator,
                    precision="bf16-mixed" if accelerator == "cuda" else "32-true",
                )
            except Exception as error:
                fault = f"{type(error).__name__}: {str(error).strip()[:200]}"
        seconds = time.perf_counter() - start
        rows.append({"pipeline": name, "seconds": seconds, "result": fault or "right"})
    return rows
