"""Errors of word times: predictions beside the known times of a manifest.

headwise speech digits --recordings FSDD --output strings/
headwise speech predict --run runs/tiny --input strings/ --known-text --output times.parquet
python benchmarks/speech_times.py strings/ times.parquet
"""

import argparse

import numpy as np
import polars as pl

from headwise.data.speech.recordings import list_speech
from headwise.pipelines.metrics.alignment import boundary_errors


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("data")
    arguments.add_argument("predictions")
    given = arguments.parse_args()
    known = {one.name: one.words or () for one in list_speech(given.data)}
    rows = pl.read_parquet(given.predictions)
    found = [
        [(word["word"], word["start"], word["end"]) for word in words] for words in rows["words"]
    ]
    errors = boundary_errors(
        found, [[(w.text, w.start, w.end) for w in known[name]] for name in rows["item"]]
    )
    print(
        "| recordings | words | start, ms | end, ms | starts within 100 ms |\n|---|---|---|---|---|"
    )
    parts = [(f"all {len(rows)}", np.ones(len(errors.start), bool))]
    if len(rows) <= 5:
        parts += [(name, errors.recording == k) for k, name in enumerate(rows["item"])]
    for name, own in parts:
        start, end = (1000 * np.abs(one[own]) for one in (errors.start, errors.end))
        print(
            f"| {name} | {own.sum()} | {start.mean():.0f} | {end.mean():.0f} | {(start <= 100).mean():.2f} |"
        )


if __name__ == "__main__":
    main()
