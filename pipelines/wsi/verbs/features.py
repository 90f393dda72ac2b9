"""The verb `features`: extract the features of all slides below a folder."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ....base.errors import InputError
from ....data.slides.slides import list_slides
from ...engine.command_line.terminal import say
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ..extraction import Extractor, extract_slides, extraction_of
from ..options import FeaturesOptions


@dataclass(frozen=True)
class Extracted:
    """Outcome of an extraction; `table` has the columns `extraction.STATUS`."""

    output: Path
    table: pl.DataFrame

    @property
    def failed(self) -> int:
        """How many slides have no features."""
        return self.table.filter(pl.col("status") == "error").height


def features(pipeline: AnyPipeline, options: FeaturesOptions) -> Extracted:
    """Write a feature file per slide and status.csv into --output."""
    slides, output = _named_slides(options.slides), Path(options.output)
    device = pick_device(options.accelerator)
    extractor = Extractor(extraction_of(options), device, options.encode_batch, options.threads)
    began = time.perf_counter()
    table = extract_slides(extractor, output, slides, dict.fromkeys(slides, options.mpp))
    seconds = time.perf_counter() - began
    if tiles := int(table.filter(~pl.col("before"))["tiles"].sum()):
        say(
            f"{tiles} tiles, {tiles / seconds:.0f} a second; the encoder waited for tiles "
            f"{extractor.waited / seconds:.1%} of the time"
        )
    say(f"features {output}, status {output / 'status.csv'}")
    return Extracted(output, table)


def _named_slides(folder: str) -> dict[str, str]:
    """The slides below a folder, each by the name of its feature file.

    Slides with the same name, in two folders or two formats, keep their folder and ending.
    """
    paths = [Path(path) for path in list_slides(folder)]
    if not paths:
        raise InputError(f"{folder}: holds no slide")
    count = Counter(path.stem for path in paths)
    return {
        path.stem if count[path.stem] == 1 else "__".join(path.relative_to(folder).parts): str(path)
        for path in paths
    }
