"""Strings of digits with exact word times: from recorded digits (FSDD), or from generated tones.

The tones are called generated wherever they are shown: a digit is a pair of tones, as on the keys
of a telephone, spoken by nobody. Both give a folder of recordings with manifest.jsonl.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...base.errors import fail, reason
from ..formats.audio import RATE, read_audio
from .manifests import Utterance, write_manifest
from .transcripts import Word

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE, VOICES = "generated-tone-digits", "generated-voices"
CONTOURS = {"falling": -0.35, "level": 0.0, "rising": 0.35}  # octaves from begin to end
_NOTE = (
    "Generated sound: pairs of tones drawn by headwise.data.speech.recordings.generate, spoken by "
    "nobody.\n"
)
_NOTE_VOICES = "Generated sound: tones drawn by headwise.data.speech.generate, spoken by nobody.\n"
_LOW, _HIGH = (697, 770, 852, 941), (1209, 1336, 1477)


def tone_digit(digit: int, generator: np.random.Generator, pitch: float = 1.0) -> np.ndarray:
    """The two tones of a digit, 0.12 to 0.25 s long, which swell and fade: float32 (S,).

    pitch: the factor of both frequencies, which makes the "speaker".
    """
    seconds = generator.uniform(0.12, 0.25)
    t = np.arange(round(seconds * RATE)) / RATE
    key = 10 if digit == 0 else digit - 1
    low, high = _LOW[min(3, key // 3)] * pitch, _HIGH[1 if digit == 0 else key % 3] * pitch
    phase = generator.uniform(0, 2 * np.pi, 2)
    shape = np.minimum(1, np.minimum(t, t[::-1]) / 0.015)
    tones = [np.sin(2 * np.pi * f * t + p) for f, p in zip((low, high), phase, strict=True)]
    return (0.25 * shape * (tones[0] + tones[1])).astype(np.float32)


def write_sample_speech(folder: Path, *, strings: int = 240) -> Path:
    """Write generated tone digits into `folder`/generated-tone-digits; returns that folder.

    There are six "speakers" of different pitch; the last is the test part, the one before it the
    validation part. The bytes are the same each time on one machine.
    """

    def draw(speaker: int, digit: int, generator: np.random.Generator) -> np.ndarray:
        return tone_digit(digit, generator, 0.97 + 0.012 * speaker)

    speakers = [f"tone-{k + 1}" for k in range(6)]
    parts = dict.fromkeys(speakers, "train") | {speakers[4]: "validation", speakers[5]: "test"}
    home = _strings(
        folder / SAMPLE,
        draw,
        speakers,
        parts,
        strings,
        seed=53,
        gaps=(0.03, 0.2),
        noise=0.003,
        prefix="generated",
    )
    (home / "GENERATED.txt").write_text(_NOTE, encoding="utf-8")
    return home


def write_sample_voices(folder: Path, *, speakers: int = 12, takes: int = 3) -> Path:
    """Write generated tones whose pitch falls, stays or rises into `folder`/generated-voices, with
    labels.csv (audio, label, speaker); returns that folder.

    Each "speaker" has a pitch and a timbre of its own. The bytes are the same each time on one
    machine.
    """
    home = folder / VOICES
    lines = ["audio,label,speaker"]
    try:
        home.mkdir(parents=True, exist_ok=True)
        for speaker in range(speakers):
            for number, (label, change) in enumerate(CONTOURS.items()):
                for take in range(takes):
                    generator = np.random.default_rng([67, speaker, number, take])
                    name = f"{label}-{speaker + 1:02d}-{take + 1}.wav"
                    _write_wave(home / name, _gliding_tone(speaker, change, generator))
                    lines.append(f"{name},{label},tone-{speaker + 1:02d}")
        (home / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (home / "GENERATED.txt").write_text(_NOTE_VOICES, encoding="utf-8")
    except OSError as error:
        raise fail(home, f"cannot be written ({reason(error)})") from None
    return home


def _gliding_tone(speaker: int, change: float, generator: np.random.Generator) -> np.ndarray:
    """A tone with overtones whose pitch changes by so many octaves, float32 (S,)."""
    seconds = generator.uniform(0.4, 0.7)
    share = np.arange(round(seconds * RATE)) / (seconds * RATE)
    octaves = (change + generator.normal(0, 0.08)) * (share - 0.5)
    hertz = 100 * 2 ** (speaker / 12 + octaves)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    slope = 0.5 + 0.05 * (speaker % 5)
    tone = sum(slope**k * np.sin((k + 1) * phase) for k in range(6))
    swell = np.minimum(1, np.minimum(share, 1 - share) / 0.05)
    noise = 0.02 * generator.standard_normal(len(share))
    return (0.2 * swell * tone + noise).astype(np.float32)


def write_digit_strings(
    recordings: Path,
    folder: Path,
    *,
    strings: int = 30,
    seed: int = 0,
    gaps: tuple[float, float] = (0.05, 0.5),
    speakers: Sequence[str] = (),
    parts: dict[str, str] | None = None,
    digits: tuple[int, int] = (4, 9),
) -> Path:
    """Write strings of the recordings of the Free Spoken Digit Dataset into `folder`; returns it.

    The recordings ({digit}_{speaker}_{take}.wav) are trimmed, so that the times of words are exact.

    strings: how many; gaps: shortest and longest pause between two digits, seconds; speakers: whose
    recordings to use, by default all; parts: the part of each speaker; where none is named "train",
    all others are; digits: least and most digits of a string.

    Raises `InputError` where recordings are missing.
    """
    takes: dict[tuple[str, int], list[Path]] = {}  # by speaker and digit
    for file in sorted(recordings.glob("*_*_*.wav")):
        digit, speaker, _ = file.stem.split("_", 2)
        if digit.isdigit() and len(digit) == 1:
            takes.setdefault((speaker, int(digit)), []).append(file)
    names = sorted({speaker for speaker, _ in takes}) if not speakers else list(speakers)
    if parts and "train" not in parts.values():
        parts = {**dict.fromkeys(names, "train"), **parts}
    if not takes or any((name, digit) not in takes for name in names for digit in range(10)):
        raise fail(
            recordings,
            "holds no recordings {digit}_{speaker}_{take}.wav of all ten digits of each speaker",
        )

    def draw(speaker: int, digit: int, generator: np.random.Generator) -> np.ndarray:
        files = takes[names[speaker], digit]
        return read_audio(files[int(generator.integers(len(files)))])

    return _strings(
        folder,
        draw,
        names,
        parts or {},
        strings,
        seed=seed,
        gaps=gaps,
        noise=0.0,
        prefix="digits",
        digits=digits,
    )


def _strings(
    home: Path,
    draw: Callable[[int, int, np.random.Generator], np.ndarray],
    speakers: Sequence[str],
    parts: dict[str, str],
    strings: int,
    *,
    seed: int,
    gaps: tuple[float, float],
    noise: float,
    prefix: str,
    digits: tuple[int, int] = (3, 6),
) -> Path:
    utterances = []
    try:
        home.mkdir(parents=True, exist_ok=True)
        for number in range(strings):
            generator = np.random.default_rng([seed, number])
            speaker = number % len(speakers)
            pieces = [np.zeros(round(RATE * generator.uniform(0.05, 0.3)), np.float32)]
            at, words = len(pieces[0]), []
            for _ in range(int(generator.integers(digits[0], digits[1] + 1))):
                digit = int(generator.integers(10))
                spoken = draw(speaker, digit, generator)
                words.append(Word(DIGITS[digit], at / RATE, (at + len(spoken)) / RATE))
                pause = np.zeros(round(RATE * generator.uniform(*gaps)), np.float32)
                pieces += [spoken, pause]
                at += len(spoken) + len(pause)
            samples = np.concatenate(pieces)
            samples = samples + noise * generator.standard_normal(len(samples)).astype(np.float32)
            name = f"{prefix}-{number + 1:03d}"
            _write_wave(home / f"{name}.wav", samples)
            text = " ".join(word.text for word in words)
            person = speakers[speaker]
            utterance = Utterance(
                name, f"{name}.wav", 0.0, None, text, person, parts.get(person, ""), tuple(words)
            )
            utterances.append(utterance)
    except OSError as error:
        raise fail(home, f"cannot be written ({reason(error)})") from None
    write_manifest(home / "manifest.jsonl", utterances)
    return home


def _write_wave(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
