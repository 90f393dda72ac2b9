"""Errors of word times: predictions compared with the known times of a manifest.

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
    known = {recording.name: recording.words or () for recording in list_speech(arguments.data)}
    rows = pl.read_parquet(arguments.predictions)
    predicted = [
        [(word["word"], word["start"], word["end"]) for word in words] for words in rows["words"]
    ]
    reference = [[(w.text, w.start, w.end) for w in known[name]] for name in rows["item"]]
    errors = boundary_errors(predicted, reference)
    print_header("recordings", "words", "start, ms", "end, ms", "starts within 100 ms")
    parts = [(f"all {len(rows)}", np.ones(len(errors.start), bool))]
    if len(rows) <= 5:
        parts += [(name, errors.recording == k) for k, name in enumerate(rows["item"])]
    for name, part in parts:
        start, end = (1000 * np.abs(error[part]) for error in (errors.start, errors.end))
        means = f"{start.mean():.0f}", f"{end.mean():.0f}"
        print_row(name, part.sum(), *means, f"{(start <= 100).mean():.2f}")


if __name__ == "__main__":
    main()
