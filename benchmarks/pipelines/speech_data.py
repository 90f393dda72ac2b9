"""Manifests of the recordings that docs/measured/speech.md measures, from the data folder
(HEADWISE_DATA).

    python benchmarks/pipelines/speech_data.py FOLDER

read.jsonl: the address of Kennedy's inauguration and SpeechBrain's ten read sentences, with their
text; spontaneous.jsonl: MFA's three recordings with the times of their words; comparison.jsonl: 22
recordings in English, most of them read aloud, of a dozen speakers. The recordings stay where they
are.
"""

import json
from pathlib import Path

from headwise.benchmarks.cells import DATA
from headwise.benchmarks.measure import parser_of
from headwise.data.speech.manifests import Utterance, write_manifest
from headwise.data.speech.transcripts import read_textgrid

HOME = DATA.resolve() / "speech"
SENTENCES = "speechbrain_asr/tests/samples"
KENNEDY = (
    "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country."
)
OTHERS = {
    "lhotse/test/fixtures": (
        "mix_cut_test/audio/storage/2412-153948-0000.flac",
        "mix_cut_test/audio/storage/2412-153948-0001.flac",
        "libri/libri-1088-134315-0000.wav",
        "ljspeech/storage/LJ002-0020.wav",
        "ljspeech/storage/LJ002-0035.wav",
        "common_voice_en_651325.mp3",
        "ami/ES2011a.Headset-0-40s-46s.wav",
    ),
    "mfa/tests/data/wav": (
        "common_voice_en_22058264.mp3",
        "common_voice_en_22058266.mp3",
        "common_voice_en_22058267.mp3",
        "61-70968-0000.flac",
    ),
}


def read() -> list[Utterance]:
    """Kennedy and the ten sentences; the speaker is named by the file."""
    recordings = [
        Utterance("jfk", str(HOME / "jfk/jfk.flac"), text=KENNEDY, speaker="jfk", part="test")
    ]
    for name in ("ASR_train.json", "ASR_dev.json"):
        for key, row in json.loads((HOME / SENTENCES / "annotation" / name).read_text()).items():
            file = HOME / SENTENCES / "ASR" / Path(row["wav"]).name
            speaker = key.split("_")[0]
            recordings.append(
                Utterance(key, str(file), text=row["words"], speaker=speaker, part="test")
            )
    return recordings


def spontaneous() -> list[Utterance]:
    """MFA's recordings with the times of their words."""
    recordings = []
    for name in ("acoustic_corpus", "cold_corpus", "cold_corpus3"):
        words = tuple(read_textgrid(HOME / "mfa/tests/data/textgrid" / f"{name}.TextGrid"))
        file = HOME / "mfa/tests/data/wav" / f"{name}.wav"
        text = " ".join(word.text for word in words)
        recordings.append(Utterance(name, str(file), text=text, words=words, part="test"))
    return recordings


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    others = [
        Utterance(Path(name).stem, str(HOME / home / name))
        for home, names in OTHERS.items()
        for name in names
    ]
    sets = {"read": read(), "spontaneous": spontaneous(), "comparison": [*read(), *others]}
    for name, rows in sets.items():
        write_manifest(folder / f"{name}.jsonl", rows)
        print(f"{folder / name}.jsonl: {len(rows)} recordings")


if __name__ == "__main__":
    main()
