"""The verb `features`: extract the features of all slides below a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError
from ....data.slides.files import FEATURE_SUFFIXES, feature_names
from ....data.slides.slides import list_slides
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.inference.output import refuse_input_as_output
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.runs.paths import homes_of
from ...engine.runs.run_directory import ACCOUNT
from ..extraction import STATUS_FILE, Extractor, extract_slides, extraction_of
from ..options import FeaturesOptions
from ..prediction import links_below


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
    """Write a feature file per slide, status.csv and account.json into --output."""
    with opened(options.accept, homes_of(options)) as account:
        refuse_input_as_output(options.output, [options.slides])
        slides, output = _named_slides(options.slides, Path(options.output)), Path(options.output)
        device = pick_device(options.accelerator)
        extractor = Extractor(
            extraction_of(options), device, options.encode_batch, options.threads, mpp_first=True
        )
        began = time.perf_counter()
        table = extract_slides(extractor, output, slides, dict.fromkeys(slides, options.mpp))
        seconds = time.perf_counter() - began
        publish(account, output / ACCOUNT)
    if tiles := int(table.filter(~pl.col("before"))["tiles"].sum()):
        say(
            f"{tiles} tiles, {tiles / seconds:.0f} a second; the encoder waited for tiles "
            f"{extractor.waited / seconds:.1%} of the time"
        )
    say(f"features {output}, status {output / STATUS_FILE}")
    return Extracted(output, table)


def _named_slides(folder: str, output: Path) -> dict[str, str]:
    """The slides below a folder, each by the name of its feature file."""
    known = (*FEATURE_SUFFIXES, STATUS_FILE)
    paths = [path for path in list_slides(folder, known) if not Path(path).is_relative_to(output)]
    if not paths:
        raise InputError(f"{folder}: holds no slide{links_below(Path(folder))}")
    note("read", "slides", count=len(paths))
    return dict(zip(feature_names(paths, folder), paths, strict=True))
