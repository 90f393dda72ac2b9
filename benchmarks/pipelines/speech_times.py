"""Errors of word times: predictions beside the known times of a manifest.

headwise speech digits --recordings FSDD --output strings/
headwise speech predict --run runs/tiny --input strings/ --known-text --output times.parquet
python benchmarks/pipelines/speech_times.py strings/ times.parquet
"""

import numpy as np
import polars as pl

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.data.speech.recordings import list_speech
from headwise.pipelines.metrics.alignment import boundary_errors


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data")
    parser.add_argument("predictions")
    arguments = parser.parse_args()
    known = {one.name: one.words or () for one in list_speech(arguments.data)}
    rows = pl.read_parquet(arguments.predictions)
    found = [
        [(word["word"], word["start"], word["end"]) for word in words] for words in rows["words"]
    ]
    errors = boundary_errors(
        found, [[(w.text, w.start, w.end) for w in known[name]] for name in rows["item"]]
    )
    print_header("recordings", "words", "start, ms", "end, ms", "starts within 100 ms")
    parts = [(f"all {len(rows)}", np.ones(len(errors.start), bool))]
    if len(rows) <= 5:
        parts += [(name, errors.recording == k) for k, name in enumerate(rows["item"])]
    for name, own in parts:
        start, end = (1000 * np.abs(one[own]) for one in (errors.start, errors.end))
        print_row(
            name,
            own.sum(),
            f"{start.mean():.0f}",
            f"{end.mean():.0f}",
            f"{(start <= 100).mean():.2f}",
        )


if __name__ == "__main__":
    main()
