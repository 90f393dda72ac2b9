"""Generated messages to a help desk, called generated wherever they are shown.

Each message is about one to three matters, written in one of several ways with words that other
matters use as well; a matter's label has two levels (hardware::printer). What was solved already is
mentioned and has no label, which takes the order of words to see. Customers write several messages.
The bytes are the same each time.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...base.errors import fail, reason

SAMPLE = "generated-messages"
MATTERS = {
    "hardware::printer": (
        "the printer jams",
        "paper is stuck in the printer",
        "print jobs stay in the queue",
    ),
    "hardware::screen": (
        "the screen flickers",
        "my second monitor stays black",
        "colours on the display are off",
    ),
    "hardware::keyboard": (
        "keys on the keyboard stick",
        "the keyboard types twice",
        "a key fell off my laptop",
    ),
    "access::password": (
        "I forgot my password",
        "the password reset mail never comes",
        "my login is refused",
    ),
    "access::rights": (
        "I cannot open the shared folder",
        "permission is denied on the drive",
        "please give me access to the project",
    ),
    "network::wifi": (
        "the wireless drops every hour",
        "wifi is slow in room 12",
        "my laptop finds no wireless network",
    ),
    "network::vpn": (
        "the vpn does not connect from home",
        "the tunnel closes after a minute",
        "remote work fails with a vpn error",
    ),
    "software::crash": (
        "the program closes by itself",
        "the editor crashes when I save",
        "an error window comes up at start",
    ),
    "software::update": (
        "the update hangs at ninety percent",
        "a new version asks for admin rights",
        "after the upgrade my settings are gone",
    ),
    "billing::invoice": (
        "the invoice lists a wrong address",
        "we were charged twice",
        "please send last month's bill again",
    ),
}
OPENINGS = ("Hello,", "Dear team,", "Hi,", "Good morning,", "To whom it may concern:", "")
SOLVED = ("solved since: {0}", "no longer a problem: {0}", "never mind that {0}, it works again")
FILLERS = (
    "It began on Monday.", "My colleague has the same.", "Please call me back.",
    "It is urgent, a customer waits.", "I restarted twice.", "Thanks for your help.",
)  # fmt: skip
SOURCES, PLANS = ("mail", "chat", "form"), ("free", "team", "company")


def write_sample_texts(folder: Path, *, texts: int = 900) -> Path:
    """Write generated-messages.jsonl into a folder; returns the file.

    texts: how many. Raises `InputError` where the folder cannot be written.
    """
    path, generator = folder / f"{SAMPLE}.jsonl", np.random.default_rng(2026)
    lines = []
    for number in range(texts):
        text, labels = _message(generator)
        customer = f"C{int(generator.integers(texts // 3)):03d}"
        plan = PLANS[int(generator.integers(3))]
        row = {
            "id": f"generated-{number + 1:04d}",
            "text": text,
            "labels": labels,
            "customer": customer,
            "source": SOURCES[int(generator.integers(3))],
            "plan": plan,
            "seats": int(generator.integers(1, 40)),
        }
        lines.append(json.dumps(row))
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise fail(path, f"cannot be written ({reason(error)})") from error
    return path


def _message(generator: np.random.Generator) -> tuple[str, list[str]]:
    names = list(MATTERS)
    count = int(generator.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    matters = [names[k] for k in generator.choice(len(names), count, replace=False)]
    sentences = [_pick(generator, OPENINGS)]
    for matter in matters:
        sentences.append(_sentence(_pick(generator, MATTERS[matter])))
        if generator.random() < 0.4:
            sentences.append(_pick(generator, FILLERS))
    if generator.random() < 0.5:
        absent = _pick(generator, [name for name in names if name not in matters])
        words = _pick(generator, MATTERS[absent])
        sentences.append(_sentence(_pick(generator, SOLVED).format(words)))
    return " ".join(filter(None, sentences)), sorted(matters)


def _pick(generator: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[int(generator.integers(len(choices)))]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
