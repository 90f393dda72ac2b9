"""The built-in sample of prompts with answers: numbers in words, called generated wherever they are
shown. The bytes are the same each time.
"""

from __future__ import annotations

import json
from pathlib import Path

from ...base.files import write_text

SAMPLE = "generated-answers"
NUMBERS, ASKED_TWICE = range(20, 60), range(20, 28)
_ONES = (
    "", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
_TENS = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty"}
_ASKED = ("Write {} in words.", "How is {} spelled?")


def write_sample_answers(folder: Path) -> Path:
    """Write generated-answers.jsonl into a folder: each number is a group, and some are
    asked for twice.
    Returns the file. Raises `InputError` where the folder cannot be written.
    """
    lines = []
    for number in NUMBERS:
        tens, ones = _TENS[number // 10], _ONES[number % 10]
        times = 2 if number in ASKED_TWICE else 1
        for place, asked in enumerate(_ASKED[:times]):
            row = {
                "id": f"generated-{number}-{place + 1}",
                "prompt": asked.format(number),
                "answer": f"{tens}-{ones}" if ones else tens,
                "group": f"number {number}",
            }
            lines.append(json.dumps(row))
    path = folder / f"{SAMPLE}.jsonl"
    write_text(path, "\n".join(lines) + "\n")
    return path
