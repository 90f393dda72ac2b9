"""The verb `export`: a folder in Hugging Face's form, or one program as of the other tasks."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path

import torch

from ....base.account import opened as opened_account
from ....base.errors import InputError
from ....base.own_files import ASIDE
from ....models.language.tuning.lora import merge_lora
from ....models.language.tuning.tuned import LanguageModel, ModelAsItCame, TunedModel
from ...engine.command_line.terminal import say
from ...engine.inference.export import export as export_program
from ...engine.runs.loaded import load_run
from ...engine.training.jobs import with_data
from ..data import coder_of
from ..options import FinetuneExportOptions
from ..pipeline import FinetunePipeline
from ..spec import TuneSpec


def export(pipeline: FinetunePipeline, options: FinetuneExportOptions) -> str:
    """Write what predicts; returns the path. Nothing is left behind by a model that fails.

    Raises `InputError` for a folder that is there already, for a model that no plain model of
    transformers can be, and for a difference above --tolerance.
    """
    path = Path(options.output)
    if path.suffix.lower() in (".pt2", ".onnx"):
        return export_program(pipeline, options)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: is there already; name a new folder, or a file .pt2 or .onnx")
    loaded = load_run(pipeline, options.run, "cpu")
    assert isinstance(loaded.spec, TuneSpec)
    model = loaded.model
    assert isinstance(model, LanguageModel)
    merged = merged_model(model)
    with opened_account(loaded.options.accept):
        splits = pipeline.open_data(with_data(pipeline, loaded.options, loaded.run), loaded.spec)
    tokens, mask = pipeline.export_example(model, splits)[0]
    assert tokens is not None
    with torch.no_grad():
        expected = without_examples(model)(tokens, mask)
    difference = _write(path, merged, loaded.spec, (tokens, expected), options.tolerance)
    if isinstance(model, ModelAsItCame):
        say("the model as it came is written, since it predicts: tuning was no better")
    say(f"exported {path}; largest difference from the original {difference:.2g}")
    return str(path)


def without_examples(model: LanguageModel) -> LanguageModel:
    """The model without the examples that it sees before a prompt, which no folder can hold."""
    return ModelAsItCame(model.base) if isinstance(model, ModelAsItCame) else model


def merged_model(model: LanguageModel) -> torch.nn.Module:
    """The model of transformers with all updates in its weights. Raises `InputError` where it would
    need modules that transformers does not have.
    """
    if not isinstance(model, TunedModel):
        return model.base
    if model.change.convert != "none":
        raise InputError(
            f"--convert {model.change.convert}: its modules are none of transformers; "
            "--output NAME.pt2 writes it as a program"
        )
    if model.change.method == "moe-lora":
        raise InputError(
            "--method moe-lora: each token chooses its updates, so that they are in no weights; "
            "--output NAME.pt2 writes it as a program, and --method lora can be merged"
        )
    base = copy.deepcopy(model.base)
    merge_lora(base)
    return base


def _write(
    path: Path,
    model: torch.nn.Module,
    spec: TuneSpec,
    example: tuple[torch.Tensor, torch.Tensor],
    tolerance: float,
) -> float:
    """Write aside, read again, compare, move into place; returns the largest difference."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{path.name}", dir=path.parent))
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(aside)  # type: ignore[operator]
        coder = coder_of(spec)
        coder.tokenizer.save_pretrained(aside)
        # Where a tuned answer ends, transformers is to stop as well.
        settings = copy.deepcopy(model.generation_config)
        settings.eos_token_id = sorted(coder.ends) or None  # type: ignore[union-attr]
        settings.save_pretrained(aside)  # type: ignore[operator,union-attr]
        again = AutoModelForCausalLM.from_pretrained(aside, local_files_only=True).eval()
        tokens, expected = example
        with torch.no_grad():
            gap = (again(input_ids=tokens, use_cache=False).logits - expected).abs()
        difference = float((gap / expected.abs().clamp(min=1)).max())
        if not difference <= tolerance:
            raise InputError(
                f"{path}: the exported model differs by {difference:.2g}, more than --tolerance "
                f"{tolerance}; nothing is written"
            )
        if path.is_dir():
            path.rmdir()
        os.chmod(aside, 0o755)
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if shown:
            logging.enable_progress_bar()
    return difference
