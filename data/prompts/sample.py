"""The built-in sample: generated prompts over generated sentences, called generated wherever they
are shown. The bytes are the same each time.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...base.files import write_text
from .generate import filler_of, generate_prompts

SAMPLE = "generated-prompts"
GROUPS, OF_GROUP, LENGTH = 10, 2, 320  # texts, prompts over a text, characters of a prompt
WHO = ("The baker", "A sailor", "The old mayor", "My neighbour", "The night guard", "A teacher")
WHAT = ("carries a lamp", "counts the boats", "waters the roses", "writes a letter", "mends a net")
WHERE = ("by the river", "near the mill", "behind the church", "on the hill", "in the market")


def write_sample_prompts(folder: Path) -> Path:
    """Write generated-prompts.jsonl into a folder; returns the file. Raises `InputError` where the
    folder cannot be written.
    """
    lines = []
    for group in range(GROUPS):
        generator = np.random.default_rng([2026, group])
        text = " ".join(
            f"{generator.choice(WHO)} {generator.choice(WHAT)} {generator.choice(WHERE)}."
            for _ in range(40)
        )
        prompts = generate_prompts(
            filler_of([text], len),
            len,
            kinds=("passkey", "second" if group % 2 else "needles"),
            lengths=(LENGTH,),
            depths=(0.2 * (group % 5) + 0.1,),
            count=OF_GROUP,
            seed=group,
            name=f"generated-{group + 1:02d}",
        )
        for prompt in prompts:
            row = {
                "id": prompt.id,
                "prompt": prompt.text,
                "answer": prompt.answer,
                "question2": prompt.question2,
                "answer2": prompt.answer2,
                "group": f"text {group + 1}",
                "kind": prompt.kind,
                "depth": prompt.depth,
            }
            lines.append(json.dumps(row))
    path = folder / f"{SAMPLE}.jsonl"
    write_text(path, "\n".join(lines) + "\n")
    return path
