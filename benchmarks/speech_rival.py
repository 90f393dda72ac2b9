"""Greedy tokens beside CTranslate2's, on the same weights and recordings.

    pip install ctranslate2
    headwise data get whisper-tiny-en && headwise speech adopt --run runs/tiny
    python benchmarks/speech_data.py sets/
    python benchmarks/speech_rival.py runs/tiny WEIGHTS sets/read.jsonl

WEIGHTS: the folder with model.bin, which `data get` names. Prints each recording whose tokens
differ, and how many are equal; exit code 1 where any differs."""

import argparse
import sys

import ctranslate2

from headwise.data.formats.audio import RATE
from headwise.data.speech.log_mel import log_mel
from headwise.data.speech.recordings import list_speech
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.speech.transcriber import Transcriber


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("run", "weights", "data"):
        arguments.add_argument(name)
    given = arguments.parse_args()
    loaded = load_run(load_task("speech").load(), given.run, "cpu")
    transcriber = Transcriber.of_run(loaded.model, loaded.context(None))
    rival = ctranslate2.models.Whisper(given.weights, device="cpu", compute_type="float32")
    listed, equal = list_speech(given.data), 0
    for one in listed:
        samples = one.samples()
        features = log_mel(
            samples, transcriber.spec.features, 2 * transcriber.spec.audio_positions
        )[None]
        view = ctranslate2.StorageView.from_array(features.numpy())
        theirs = list(
            rival.generate(view, [list(transcriber.tokens.prompt)], beam_size=1)[0].sequences_ids[0]
        )
        memory = transcriber.encode(*transcriber.features([samples]))
        ours = list(transcriber.transcripts(memory, [len(samples) / RATE])[0].tokens)
        equal += ours == theirs
        if ours != theirs:
            texts = [transcriber.tokens.decode(ids) for ids in (ours, theirs)]
            print(f"{one.name}: ours {texts[0]!r}, theirs {texts[1]!r}")
    print(f"equal tokens: {equal} of {len(listed)} recordings")
    sys.exit(equal < len(listed))


if __name__ == "__main__":
    main()
