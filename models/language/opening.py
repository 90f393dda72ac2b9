"""Opening a causal language model from a folder as Hugging Face's transformers stores it.

A folder may come from anyone. Only tables of numbers (safetensors) and plain settings are read: no
pickles, no code of the folder's own, nothing from a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...base.errors import InputError, fail, reason, shown
from ...base.files import read_plain
from .plans.facts import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# Read with the tokenizer and in generation, where they are there: how prompts are written for the
# model, and where its answers end.
SETTINGS = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json",
    "special_tokens_map.json", "tokenizer_config.json",
)  # fmt: skip
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
JSON_CAP = 1 << 28  # bytes
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CODE = "auto_map"  # in settings: classes in files of the folder
_SAVE = "model.save_pretrained and tokenizer.save_pretrained of transformers write such a folder"


@dataclass(frozen=True)
class OpenedLanguageModel:
    """A causal language model in evaluation mode, on the CPU, with its tokenizer.

    name: as it was asked for; sha256: of its configuration, weights and tokenizer; licence: as
    stated, "not stated" of a folder of the user's own; folder: where its files are;
    settings_sha256: of what its files of `SETTINGS` say.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    sha256: str
    licence: str
    folder: Path
    settings_sha256: str

    @cached_property
    def facts(self) -> ModelFacts:
        """What plans of attention need to know of it. Raises InputError where there is no plan."""
        try:
            return ModelFacts.of(self.model)
        except ValueError as error:
            raise fail(self.name, str(error)) from None


def open_language_folder(
    folder: str | Path,
    *,
    name: str = "",
    licence: str = "not stated",
    dtype: torch.dtype = torch.float32,
) -> OpenedLanguageModel:
    """The model and tokenizer of a folder.

    name, licence: to be stated, by default the folder; dtype: of the weights.

    Raises ValueError, one line, for a folder without weights as safetensors or without tokenizer,
    for damaged files, weights that are missing or do not fit, models that run code of their own,
    and models of another kind than causal language models.
    """
    home = Path(folder)
    if not home.is_dir():
        raise ValueError(f"{home}: is no folder; name a folder with {CONFIG}; {_SAVE}")
    config = _settings(home / CONFIG)
    _check_config(home, config)
    files = weight_files(home)
    if not (home / TOKENIZER).is_file():
        raise ValueError(f"{home}: has no {TOKENIZER}; {_SAVE}")
    for settings in ("tokenizer_config.json", "generation_config.json"):
        if (home / settings).is_file():
            _check_code(home / settings, _settings(home / settings))
    sha256 = _digest([home / CONFIG, *files, home / TOKENIZER])
    settings_sha256 = _settings_digest(home)
    with _quiet():
        model = _model(home, dtype)
        tokenizer = _tokenizer(home)
    vectors = model.get_input_embeddings().weight
    rows = len(vectors) if isinstance(vectors, torch.Tensor) else 0
    if len(tokenizer) > rows:
        raise ValueError(
            f"{home}: its tokenizer has {len(tokenizer)} tokens, and its weights are of {rows}; "
            "the files are of two models"
        )
    return OpenedLanguageModel(
        model, tokenizer, name or str(folder), sha256, licence, home, settings_sha256
    )


def weight_files(home: Path) -> list[Path]:
    """The files of safetensors of a folder, as its index names them.

    Raises ValueError where there are none, with what is there instead.
    """
    if (home / WEIGHTS).is_file():
        return [home / WEIGHTS]
    if (home / INDEX).is_file():
        table = _settings(home / INDEX).get("weight_map")
        names = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{home / INDEX}: names {shown(name)}, no file of weights in it")
            if not (home / name).is_file():
                raise ValueError(f"{home}: lacks {name}, which {INDEX} names; fetch it again")
        if not names:
            raise ValueError(f"{home / INDEX}: names no files of weights")
        return [home / name for name in names]
    names = sorted(file.name for file in home.iterdir())
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise ValueError(
            f"{home}: {pickles[0]} is a pickle, which can run code, and is not opened; convert it "
            f"to {WEIGHTS} where you trust it: model.save_pretrained of transformers"
        )
    raise ValueError(f"{home}: has no {WEIGHTS}; {_SAVE}")


def _settings(path: Path) -> dict[str, object]:
    """A JSON object. Raises ValueError where it is missing or damaged."""
    try:
        value = json.loads(read_plain(path, JSON_CAP))
    except InputError:
        raise
    except FileNotFoundError:
        raise ValueError(f"{path}: is missing; {_SAVE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({reason(error)})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return value


def _check_code(path: Path, settings: Mapping[str, object]) -> None:
    if settings.get(_CODE):
        raise ValueError(
            f"{path}: asks to run code of its own ({_CODE}); only models that transformers itself "
            "has are opened"
        )


def _check_config(home: Path, config: Mapping[str, object]) -> None:
    """Raise ValueError for what is no causal language model of transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    path = home / CONFIG
    _check_code(path, config)
    kind, named = config.get("model_type"), config.get("architectures")
    if config.get("is_encoder_decoder"):
        raise ValueError(
            f"{path}: is an encoder with a decoder; only causal language models are opened"
        )
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise ValueError(
            f"{path}: is {shown(kind)}, of which transformers has no causal language model"
        )
    classes = {known} if isinstance(known, str) else set(known)
    if isinstance(named, list) and named and not classes & set(map(str, named)):
        raise ValueError(f"{path}: is a {shown(named[0])}, not a causal language model")
    if config.get("quantization_config"):
        raise ValueError(
            f"{path}: its weights are quantised, which is not read; name the whole model"
        )
    if (home / "adapter_config.json").is_file():
        raise ValueError(f"{home}: holds an adapter; merge it into its model and name that folder")


def _model(home: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        result: object = AutoModelForCausalLM.from_pretrained(
            str(home),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # of transformers, safetensors, torch or the system
        raise ValueError(f"{home}: cannot be opened ({reason(error)})") from None
    assert isinstance(result, tuple)  # with output_loading_info
    model, info = result
    for what, kind in (("lacks", "missing_keys"), ("does not know", "unexpected_keys")):
        if names := sorted(info[kind]):
            text = f"the model {what} {len(names)} of its weights, such as {names[0]}"
            raise ValueError(f"{home}: {text}")
    return model.eval()


def _tokenizer(home: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(home), local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:
        raise ValueError(f"{home}: its tokenizer cannot be opened ({reason(error)})") from None


def _digest(files: list[Path]) -> str:
    """SHA-256 of the bytes of some files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({reason(error)})") from None
    return digest.hexdigest()


def _settings_digest(home: Path) -> str:
    """SHA-256 of what the files of `SETTINGS` say, but for the version that wrote them."""
    said: dict[str, object] = {}
    for path in (home / name for name in SETTINGS if (home / name).is_file()):
        if path.suffix == ".json":
            entries = _settings(path)
            said[path.name] = {k: v for k, v in entries.items() if k != "transformers_version"}
        else:
            said[path.name] = _digest([path])
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and warnings of transformers: what is wrong is raised here."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
