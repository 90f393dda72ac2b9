"""Greedy tokens beside CTranslate2's, on the same weights and recordings.

    pip install ctranslate2
    headwise data get whisper-tiny-en && headwise speech adopt --run runs/tiny
    python benchmarks/pipelines/speech_data.py sets/
    python benchmarks/pipelines/speech_rival.py runs/tiny WEIGHTS sets/read.jsonl

from headwise.benchmarks.measure import parser_of
WEIGHTS: the folder with model.bin, which `data get` names. Prints each recording whose tokens
differ, and how many are equal; exit code 1 where any differs."""

import sys

import ctranslate2

from headwise.data.speech.log_mel import log_mel
from headwise.data.speech.recordings import list_speech
from headwise.models.speech.decoding import transcribe
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.speech.data import rules_of
from headwise.pipelines.speech.prediction import hearer


def main() -> None:
    parser = parser_of(__doc__)
    for name in ("run", "weights", "data"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    loaded = load_run(load_task("speech").load(), arguments.run, "cpu")
    heard = hearer(loaded.model, loaded.spec, loaded.calibration, loaded.device)
    rival = ctranslate2.models.Whisper(arguments.weights, device="cpu", compute_type="float32")
    listed, equal = list_speech(arguments.data), 0
    for one in listed:
        samples = one.samples()
        features = log_mel(
            samples, int(heard.spec["features"]), 2 * int(heard.spec["audio_positions"])
        )[None]
        view = ctranslate2.StorageView.from_array(features.numpy())
        theirs = list(
            rival.generate(view, [list(heard.tokens.prompt)], beam_size=1)[0].sequences_ids[0]
        )
        ours = list(
            transcribe(heard.model, heard.encode([samples]), rules_of(heard.spec, heard.tokens))[
                0
            ].tokens
        )
        equal += ours == theirs
        if ours != theirs:
            print(
                f"{one.name}: ours {heard.tokens.decode(ours)!r}, theirs {heard.tokens.decode(theirs)!r}"
            )
    print(f"equal tokens: {equal} of {len(listed)} recordings")
    sys.exit(equal < len(listed))


if __name__ == "__main__":
    main()
