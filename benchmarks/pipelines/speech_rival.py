"""Greedy tokens compared with CTranslate2's, on the same weights and recordings.

    pip install ctranslate2
    headwise data get whisper-tiny-en && headwise speech adopt --run runs/tiny
    python benchmarks/pipelines/speech_data.py sets/
    python benchmarks/pipelines/speech_rival.py runs/tiny WEIGHTS sets/read.jsonl

WEIGHTS: the folder with model.bin, which `data get` names. Prints each recording whose tokens
differ, and how many are equal; exit code 1 where any differs.
"""

import sys

from headwise.benchmarks.measure import parser_of
from headwise.data.formats.audio import RATE
from headwise.data.speech.log_mel import log_mel
from headwise.data.speech.recordings import list_speech
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.speech.transcriber import Transcriber


def main() -> None:
    parser = parser_of(__doc__)
    for name in ("run", "weights", "data"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    import ctranslate2

    loaded = load_run(load_task("speech").load(), arguments.run, "cpu")
    transcriber = Transcriber.of_run(loaded.model, loaded.context(None))
    spec, tokens = transcriber.spec, transcriber.tokens
    rival = ctranslate2.models.Whisper(arguments.weights, device="cpu", compute_type="float32")
    recordings, equal = list_speech(arguments.data), 0
    for recording in recordings:
        samples = recording.samples()
        features = log_mel(samples, spec.features, 2 * spec.audio_positions)[None]
        view = ctranslate2.StorageView.from_array(features.numpy())
        rival_output = rival.generate(view, [list(tokens.prompt)], beam_size=1)[0]
        theirs = list(rival_output.sequences_ids[0])
        memory = transcriber.encode(*transcriber.features([samples]))
        ours = list(transcriber.transcripts(memory, [len(samples) / RATE])[0].tokens)
        equal += ours == theirs
        if ours != theirs:
            texts = f"ours {tokens.decode(ours)!r}, theirs {tokens.decode(theirs)!r}"
            print(f"{recording.name}: {texts}")
    print(f"equal tokens: {equal} of {len(recordings)} recordings")
    sys.exit(equal < len(recordings))


if __name__ == "__main__":
    main()
