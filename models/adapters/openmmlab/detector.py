"""Detectors of mmdetection for one picture at a time, their weights read without running code of
the file.

Shapes: n boxes; Y, X pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ....base.extras import install_line
from .checkpoints import checkpoint_types, load_weights
from .operators import use_torch_operators

CONFIG_SUFFIXES = (".py", ".json")


@dataclass(frozen=True)
class Detections:
    """Boxes of one picture, in the detector's order.

    boxes: (n, 4) float32, x1, y1, x2, y2 in pixels of the picture; scores: (n,) float32; labels:
    (n,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Detector:
    """A detector of mmdetection 3 from its config and a checkpoint, as mmdet's `init_detector`
    makes it.

    config: a .py or .json file of mmengine, or its `Config`. A .py config is a program and is run:
    give your own, or one that you have read. checkpoint: read by PyTorch's weights-only reader,
    whatever mmengine does; its weights must be exactly those of the config's model. `class_names`
    are the checkpoint's, else the config's, else those of COCO for a model of 80 classes, else
    empty.

    Raises ImportError without mmdet; ValueError for a config or checkpoint that cannot be used.
    """

    def __init__(
        self,
        config: str | Path | Any,
        checkpoint: str | Path,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        use_torch_operators()
        try:
            import mmdet.datasets
            import mmdet.models  # noqa: F401  (both fill the registries)
            from mmcv.transforms import Compose
            from mmdet.registry import MODELS
            from mmengine.model.utils import revert_sync_batchnorm
            from mmengine.registry import DefaultScope
        except ImportError as error:
            raise ImportError(
                f"mmdetection cannot be imported ({error}): {install_line('openmmlab')}"
            ) from None
        settings = _read_config(config)
        weights, meta = _read_checkpoint(checkpoint)
        model_config = _without_pretrained(settings.model)
        where = config if isinstance(config, (str, Path)) else "config"
        try:
            with DefaultScope.overwrite_default_scope(settings.get("default_scope") or "mmdet"):
                self.model: nn.Module = revert_sync_batchnorm(MODELS.build(model_config))
                self.pipeline = Compose(_test_pipeline(settings))
        except Exception as error:  # what a config asks for may fail in any way
            raise ValueError(f"{where}: no detector can be built from it: {_line(error)}") from None
        _load(self.model, weights, checkpoint)
        self.class_names = _class_names(meta, settings)
        self.device = torch.device(device)
        self.model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> Detections:
        """All boxes that the detector finds in a picture, uint8 RGB (Y, X, 3), above its config's
        own threshold.

        Raises ValueError for another kind of array.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"a picture is uint8 (Y, X, 3), got {picture.dtype} {picture.shape}")
        bgr = np.ascontiguousarray(picture[..., ::-1])  # the order in which mmdet loads files
        packed: Any = self.pipeline({"img": bgr, "img_id": 0})
        data = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
        instances = self.model.test_step(data)[0].pred_instances  # pyright: ignore[reportCallIssue]
        boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
        return Detections(
            boxes.float().cpu().numpy(),
            instances.scores.float().cpu().numpy(),
            instances.labels.long().cpu().numpy(),
        )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 240 else text[:239] + "…"


def _read_config(config: str | Path | Any) -> Any:
    from mmengine.config import Config

    if not isinstance(config, (str, Path)):
        read = config
    else:
        path = Path(config)
        if (
            path.suffix not in CONFIG_SUFFIXES
        ):  # mmengine's reader of YAML makes any object that the file names
            raise ValueError(f"{path}: a config of mmdetection is a .py or .json file")
        if not path.is_file():
            raise ValueError(f"{path}: there is no such config")
        try:
            read = Config.fromfile(path)
        except Exception as error:  # it is a program, which may fail in any way
            raise ValueError(
                f"{path}: cannot be read as a config of mmengine: {_line(error)}"
            ) from None
    if not isinstance(read.get("model"), Mapping):
        raise ValueError(
            f"{config if isinstance(config, (str, Path)) else 'config'}: names no model"
        )
    return read


def _read_checkpoint(path: str | Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Weights and what the checkpoint says of its training."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such checkpoint")
    weights = load_weights(path)
    with checkpoint_types():
        checkpoint = torch.load(
            path, map_location="meta", weights_only=True
        )  # the second time without the numbers
    meta = checkpoint.get("meta")
    return weights, meta if isinstance(meta, Mapping) else {}


def _without_pretrained(model: Any) -> Any:
    """A copy of a model's config that fetches and reads no other weights: all are in the
    checkpoint.
    """
    if isinstance(model, Mapping):
        copied: Any = type(model)()
        for key, value in model.items():
            copied[key] = None if key in ("init_cfg", "pretrained") else _without_pretrained(value)
        return copied
    if isinstance(model, (list, tuple)):
        return type(model)(_without_pretrained(value) for value in model)
    return model


def _test_pipeline(settings: Any) -> list[Any]:
    """Steps of the config's test pipeline, which begins with an array in place of a file and reads
    no labels.
    """
    from mmdet.utils import get_test_pipeline_cfg

    steps = [dict(step) for step in get_test_pipeline_cfg(settings.copy())]
    if not steps or not str(steps[0].get("type")).rpartition(".")[2].startswith("LoadImage"):
        raise ValueError("the test pipeline does not begin with a LoadImageFromFile")
    steps[0] = {
        "type": "mmdet.LoadImageFromNDArray",
        "to_float32": steps[0].get("to_float32", False),
    }
    return [step for step in steps if "Annotations" not in str(step["type"])]


def _load(model: nn.Module, weights: dict[str, Any], checkpoint: str | Path) -> None:
    """Load weights that must be the model's, but for a second (averaged) set that some files
    have.
    """
    if weights and all(
        name.startswith("module.") for name in weights
    ):  # saved from several devices
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint}: weights of another model: {_line(error).partition(': ')[2]}"
        ) from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in unexpected if not name.startswith("ema_")]
    if missing or unexpected:
        example = f"no {missing[0]}" if missing else f"{unexpected[0]}, which the model has not"
        raise ValueError(
            f"{checkpoint}: weights of another model than the config's: {len(missing)} missing, "
            f"{len(unexpected)} too many ({example})"
        )


def _class_names(meta: Mapping[str, Any], settings: Any) -> tuple[str, ...]:
    """Names of classes, in the order of their labels."""
    meta_by_lower_name = {
        str(key).lower(): value
        for key, value in {**meta, **(meta.get("dataset_meta") or {})}.items()
    }
    names = meta_by_lower_name.get("classes")
    if names is None:
        dataset = settings.test_dataloader.dataset
        while names is None and isinstance(dataset, Mapping):
            names = (dataset.get("metainfo") or {}).get("classes")
            dataset = dataset.get("dataset")
    if names is None and _class_count(settings.model) == 80:
        from mmdet.evaluation import get_classes

        names = get_classes("coco")
    if isinstance(names, str):
        names = (names,)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _class_count(model: Any) -> int | None:
    """The first `num_classes` of a config's head."""
    for key in ("bbox_head", "roi_head"):
        head = model.get(key)
        head = head[-1] if isinstance(head, (list, tuple)) and head else head
        if isinstance(head, Mapping):
            return head["num_classes"] if "num_classes" in head else _class_count(head)
    return None
