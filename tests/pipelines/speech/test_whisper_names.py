"""Whisper's weights by name; no test uses the network."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

from headwise.base.errors import InputError
from headwise.pipelines.speech import whisper_names
from headwise.pipelines.speech.pretrained import find_weights
from headwise.pipelines.speech.whisper_names import FILES, SIZES, size_named


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Set what was fetched before and whether the hub answers; returns what is asked of it."""

    def set_hub(cached: tuple[str, ...] = (), answers: bool = False) -> list[str]:
        asked: list[str] = []
        folder = tmp_path / "snapshot"
        folder.mkdir(exist_ok=True)

        def cache(repository: str, file: str) -> str | None:
            return str(folder / file) if f"{repository}/{file}" in cached else None

        def download(repository: str, allow_patterns: list[str]) -> str:
            asked.append(repository)
            assert allow_patterns == list(FILES)  # no pickles
            return str(folder)

        monkeypatch.delenv("HEADWISE_OFFLINE")
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cache)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr(whisper_names, "hub_answers", lambda: answers)
        return asked

    return set_hub


def test_names_are_understood_with_and_without_their_owner() -> None:
    for size in SIZES:
        for name in (size, f"whisper-{size}", f"openai/whisper-{size}"):
            assert size_named(name) == size
    assert size_named("whisper-tiny-en") is None
    assert size_named("huge") is None


def test_what_was_fetched_before_is_taken_without_asking(hub, tmp_path: Path) -> None:
    asked = hub(cached=tuple(f"openai/whisper-small/{file}" for file in FILES[:3]))
    assert find_weights("small") == tmp_path / "snapshot"
    assert asked == []


def test_half_of_the_files_is_not_enough(hub) -> None:
    hub(cached=("openai/whisper-small/model.safetensors",))
    with pytest.raises(InputError, match="the hub cannot be reached"):
        find_weights("small")


def test_the_hub_is_asked_once_it_answers(hub, tmp_path: Path, capsys) -> None:
    asked = hub(answers=True)
    assert find_weights("whisper-large-v3") == tmp_path / "snapshot"
    assert asked == ["openai/whisper-large-v3"]
    assert "licence: https://huggingface.co/openai/whisper-large-v3" in capsys.readouterr().err


def test_offline_the_line_says_what_to_type_elsewhere(hub, monkeypatch) -> None:
    asked = hub(answers=True)
    monkeypatch.setenv("HEADWISE_OFFLINE", "1")
    line = (
        r"--weights base.en: not on this machine, and HEADWISE_OFFLINE forbids .* "
        r"`hf download openai/whisper-base.en model.safetensors .*--local-dir whisper-base.en`"
    )
    with pytest.raises(InputError, match=line):
        find_weights("base.en")
    assert asked == []


def test_a_failed_download_is_the_same_line(hub, monkeypatch) -> None:
    hub(answers=True)

    def broken(*_: object, **__: object) -> str:
        raise OSError("no space left on the device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(InputError, match="no space left on the device; on another one `hf"):
        find_weights("medium")


def test_a_misspelt_name_names_the_near_one() -> None:
    with pytest.raises(InputError, match=r"did you mean large-v3\?; names are whisper-tiny-en"):
        find_weights("large-v33")


def test_a_folder_of_that_name_is_taken_first(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_weights("small") == Path("small")
