"""GL-DMNet as a segmentor of mmsegmentation, the metrics of the field, and the stages of training.

Shapes: B scenes, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.structures import PixelData
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.registry import HOOKS, METRICS, MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ....base.files import place_below
from ....data.formats.pictures import write_png
from ....models.vision.gldmnet import build_gldmnet
from ...engine.runs.loaded import load_run
from ...metrics.saliency import SaliencyScores, saliency_scores
from ..losses import WEIGHTS, saliency_loss
from ..scoring import ALL, to_bytes
from .data import RGBDSaliencyDataset


@MODELS.register_module()
class GLDMNetSegmentor(BaseSegmentor):
    """GL-DMNet (arXiv 2501.01648) on batches (B, 4, Y, X) of `RGBDPreprocessor`.

    run: folder of a finished run of `headwise saliency train`, whose model and weights are taken;
    else options are those of `build_gldmnet`. threshold: saliency from which a pixel counts as
    salient in `pred_sem_seg`. Predictions hold the saliency in [0, 1] at the size of the picture as
    `seg_logits`, where mmsegmentation keeps the sigmoid of models of one class, too; so one set of
    weights gives one map here and in `headwise saliency predict`.

    Raises ValueError (InputError of a run) for options that make no model.
    """

    def __init__(
        self,
        data_preprocessor: Any = None,
        *,
        run: str | None = None,
        threshold: float = 0.5,
        train_cfg: Any = None,
        test_cfg: Any = None,
        pretrained: None = None,
        init_cfg: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if pretrained is not None:
            raise ValueError(
                "GLDMNetSegmentor: weights, transformer_weights or run name weights, not pretrained"
            )
        if run is None:
            self.net: Any = build_gldmnet(**options)
        elif options:
            raise ValueError(f"GLDMNetSegmentor: {sorted(options)[0]} is settled by the run")
        else:
            from .. import TASK

            self.net = load_run(TASK.load(), run, "cpu").model
        self.threshold = threshold
        self.dataset_meta = RGBDSaliencyDataset.METAINFO

    # The base class says bool, None and a tuple of what these return.
    def extract_feat(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:  # pyright: ignore
        """Maps of strides 4 to 32 of colour and of depth."""
        return self.net.rgb(inputs[:, :3]), self.net.depth(inputs[:, 3:].expand(-1, 3, -1, -1))

    def encode_decode(self, inputs: Tensor, batch_data_samples: Any = None) -> Tensor:  # pyright: ignore
        """Logits (B, 1, Y, X) of the map that is used."""
        return self._forward(inputs)[0]

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> list[Tensor]:  # pyright: ignore
        """Logits of S_1 to S_4, each (B, 1, Y, X)."""
        return self.net.scales(inputs[:, :3], inputs[:, 3:])

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Cross-entropy and IoU of the four maps, by the paper's weights: loss_s1 to loss_s4."""
        mask = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).float()
        found = self._forward(inputs)
        return {
            f"loss_s{i}": w * saliency_loss(x, mask)
            for i, (w, x) in enumerate(zip(WEIGHTS, found), 1)
        }

    def predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """seg_logits: saliency in [0, 1], (1, Y, X) at the picture's own size; pred_sem_seg: where
        it is salient.
        """
        found = self.net(inputs[:, :3], inputs[:, 3:]).float()
        samples = [SegDataSample() for _ in found] if data_samples is None else list(data_samples)
        for sample, saliency in zip(samples, found):
            there = _as_the_picture(saliency[None], sample.metainfo)[0]
            sample.set_data(
                {
                    "seg_logits": PixelData(data=there),
                    "pred_sem_seg": PixelData(data=(there >= self.threshold).long()),
                }
            )
        return samples


def _as_the_picture(saliency: Tensor, meta: dict[str, Any]) -> Tensor:
    """(1, 1, Y, X) without padding, mirrored back, at the picture's own size."""
    left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    saliency = saliency[:, :, top : saliency.shape[2] - bottom, left : saliency.shape[3] - right]
    if meta.get("flip"):
        saliency = saliency.flip(3 if meta["flip_direction"] == "horizontal" else 2)
    size = tuple(meta["ori_shape"][:2]) if "ori_shape" in meta else tuple(saliency.shape[2:])
    return F.interpolate(saliency, size, mode="bilinear", align_corners=False)


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """S-, E- and F-measure (max, mean, adaptive), weighted F, MAE, of maps rounded to 8 bits, by
    PySODMetrics' conventions.

    by_set: also the scores of each data set, where the samples name theirs; output_dir: folder for
    the maps, 8-bit PNG under the pictures' own names."""

    default_prefix = "saliency"

    def __init__(self, by_set: bool = False, output_dir: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.by_set, self.output_dir = by_set, output_dir

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score a batch of predictions."""
        for sample in data_samples:
            mask = sample["gt_sem_seg"]["data"][0].cpu() > 0
            drawn = to_bytes(sample["seg_logits"]["data"][0], (mask.shape[0], mask.shape[1]))
            scores = saliency_scores(torch.from_numpy(drawn)[None], mask[None])
            self.results.append((sample.get("set", ALL), scores))
            if self.output_dir is not None:
                name = Path(sample["img_path"]).with_suffix(".png").name
                write_png(
                    place_below(Path(self.output_dir), f"{sample.get('set', '')}/{name}"), drawn
                )

    def compute_metrics(self, results: list[tuple[str, SaliencyScores]]) -> dict[str, float]:
        """Every metric by its full name; of a data set as "NLPR MAE"."""
        table = SaliencyScores.join([scores for _, scores in results]).table()
        names = sorted({name for name, _ in results}) if self.by_set else []
        for name in names if len(names) > 1 else []:
            own = SaliencyScores.join([scores for of, scores in results if of == name]).table()
            table.update({f"{name} {metric}": value for metric, value in own.items()})
        return {name: float(np.round(value, 6)) for name, value in table.items()}


@HOOKS.register_module()
class StagesHook(Hook):
    """The paper's stages of training: the encoders are held for some epochs, then the transformer,
    then nothing.

    encoder, transformer: epochs of the first and the second stage. Several devices need
    `find_unused_parameters=True` in the config.
    """

    def __init__(self, encoder: int = 30, transformer: int = 30) -> None:
        self.encoder, self.transformer = encoder, transformer

    def before_train_epoch(self, runner: Any) -> None:
        """Hold what this epoch holds."""
        model: Any = getattr(runner.model, "module", runner.model)
        held = ("encoder",) if runner.epoch < self.encoder else ()
        if self.encoder <= runner.epoch < self.encoder + self.transformer:
            held = ("transformer",)
        model.net.freeze(*held)
        for name in ("encoder", "transformer"):
            for part in model.net.parts(name):
                part.requires_grad_(name not in held)
                for weight in part.parameters():
                    weight.grad = None  # an optimiser's momentum moves what has a gradient, be it 0
