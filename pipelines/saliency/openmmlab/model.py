"""GL-DMNet as a segmentor of mmsegmentation, the field's metrics, and the stages of training.

Shapes: B scenes, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.registry import HOOKS, METRICS, MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ....base.files import place_below
from ....data.formats.pictures import write_png
from ....models.vision.gldmnet import GLDMNet, build_gldmnet
from ...engine.runs.loaded import load_run
from ...metrics.saliency import SaliencyScores, saliency_scores
from ..pipeline import FROZEN_PARTS, LOSS_WEIGHTS, saliency_loss
from ..scoring import ALL, to_bytes
from .data import RGBDSaliencyDataset


@MODELS.register_module()
class GLDMNetSegmentor(BaseSegmentor):
    """GL-DMNet (arXiv 2501.01648) on batches (B, 4, Y, X) of `RGBDPreprocessor`.

    run: folder of a finished run of `headwise saliency train`, whose model and weights are used;
    without it, `options` are those of `build_gldmnet`. threshold: saliency from which a pixel
    counts as salient in `pred_sem_seg`. Predictions hold the saliency in [0, 1], in the size of the
    picture, as `seg_logits`, where mmsegmentation also keeps the sigmoid of models with one class;
    so one set of weights gives the same map here and in `headwise saliency predict`.

    Raises `ValueError` for options that make no model, and `InputError` for a run that cannot be
    used.
    """

    def __init__(
        self,
        data_preprocessor: dict | None = None,
        *,
        run: str | None = None,
        threshold: float = 0.5,
        train_cfg: object = None,
        test_cfg: object = None,
        pretrained: None = None,
        init_cfg: dict | list[dict] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if pretrained is not None:
            raise ValueError(
                "GLDMNetSegmentor: weights, transformer_weights or run name weights, not pretrained"
            )
        if run is None:
            self.net = build_gldmnet(**options)
        elif options:
            raise ValueError(f"GLDMNetSegmentor: {sorted(options)[0]} is settled by the run")
        else:
            from .. import TASK

            self.net = cast(GLDMNet, load_run(TASK.load(), run, "cpu").domain_model)
        self.threshold = threshold
        self.dataset_meta = RGBDSaliencyDataset.METAINFO

    # The base class declares bool, None and a tuple as return types of these.
    def extract_feat(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:  # pyright: ignore
        """Maps of strides 4 to 32 of colour and of depth."""
        return self.net.rgb(inputs[:, :3]), self.net.depth(inputs[:, 3:].expand(-1, 3, -1, -1))

    def encode_decode(self, inputs: Tensor, batch_data_samples: object = None) -> Tensor:  # pyright: ignore
        """Logits (B, 1, Y, X) of S_1, the map that is used."""
        return self._forward(inputs)[0]

    def _forward(self, inputs: Tensor, data_samples: object = None) -> list[Tensor]:  # pyright: ignore
        """Logits of S_1 to S_4, each (B, 1, Y, X)."""
        return self.net.scales(inputs[:, :3], inputs[:, 3:])

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Cross-entropy and IoU of the four maps, with the paper's weights: loss_s1 to loss_s4."""
        mask = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).float()
        maps = zip(LOSS_WEIGHTS, self._forward(inputs))
        return {f"loss_s{i}": w * saliency_loss(x, mask) for i, (w, x) in enumerate(maps, 1)}

    def predict(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """seg_logits: saliency in [0, 1], (1, Y, X) in the size of the picture; pred_sem_seg: 1
        where a pixel is salient.
        """
        maps = self.net(inputs[:, :3], inputs[:, 3:]).float()
        samples = [SegDataSample() for _ in maps] if data_samples is None else list(data_samples)
        for sample, values in zip(samples, maps):
            saliency = _as_the_picture(values[None], sample.metainfo)[0]
            sample.set_data(
                {
                    "seg_logits": PixelData(data=saliency),
                    "pred_sem_seg": PixelData(data=(saliency >= self.threshold).long()),
                }
            )
        return samples


def _as_the_picture(saliency: Tensor, meta: dict) -> Tensor:
    """(1, 1, Y, X) without padding, mirrored back, in the size of the picture."""
    # Padding in pixels: x0, x1 at the sides, y0, y1 above and below.
    x0, x1, y0, y1 = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    saliency = saliency[:, :, y0 : saliency.shape[2] - y1, x0 : saliency.shape[3] - x1]
    if meta.get("flip"):
        saliency = saliency.flip(3 if meta["flip_direction"] == "horizontal" else 2)
    size = tuple(meta["ori_shape"][:2]) if "ori_shape" in meta else tuple(saliency.shape[2:])
    return F.interpolate(saliency, size, mode="bilinear", align_corners=False)


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """S-, E- and F-measure (max, mean, adaptive), weighted F and MAE of maps rounded to 8 bits, by
    PySODMetrics' conventions.

    by_set: also score each data set, if the samples name theirs. output_dir: folder for the maps,
    8-bit PNG files with the names of the pictures.
    """

    default_prefix = "saliency"

    def __init__(self, by_set: bool = False, output_dir: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.by_set, self.output_dir = by_set, output_dir

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Score a batch of predictions."""
        for sample in data_samples:
            mask = sample["gt_sem_seg"]["data"][0].cpu() > 0
            levels = to_bytes(sample["seg_logits"]["data"][0], (mask.shape[0], mask.shape[1]))
            scores = saliency_scores(torch.from_numpy(levels)[None], mask[None])
            self.results.append((sample.get("set", ALL), scores))
            if self.output_dir is not None:
                name = Path(sample["img_path"]).with_suffix(".png").name
                place = place_below(Path(self.output_dir), f"{sample.get('set', '')}/{name}")
                write_png(place, levels)

    def compute_metrics(self, results: list[tuple[str, SaliencyScores]]) -> dict[str, float]:
        """Every metric by its full name; that of a data set as "NLPR MAE"."""
        table = SaliencyScores.join([scores for _, scores in results]).table()
        names = sorted({name for name, _ in results}) if self.by_set else []
        for name in names if len(names) > 1 else []:
            of_set = SaliencyScores.join([scores for home, scores in results if home == name])
            table.update({f"{name} {metric}": x for metric, x in of_set.table().items()})
        return {name: float(np.round(value, 6)) for name, value in table.items()}


@HOOKS.register_module()
class StagesHook(Hook):
    """The paper's stages of training: the encoders are frozen for some epochs, then the
    transformer, then nothing.

    encoder, transformer: number of epochs of the first and the second stage. Training on several
    devices needs `find_unused_parameters=True` in the config.
    """

    def __init__(self, encoder: int = 30, transformer: int = 30) -> None:
        self.encoder, self.transformer = encoder, transformer

    def before_train_epoch(self, runner: Runner) -> None:
        """Freeze the parts that this epoch freezes."""
        model = cast(GLDMNetSegmentor, getattr(runner.model, "module", runner.model))
        frozen = ("encoder",) if runner.epoch < self.encoder else ()
        if self.encoder <= runner.epoch < self.encoder + self.transformer:
            frozen = ("transformer",)
        model.net.freeze(*frozen)
        for name in FROZEN_PARTS:
            for part in model.net.parts(name):
                part.requires_grad_(name not in frozen)
                for weight in part.parameters():
                    # An optimiser's momentum moves what has a gradient, even a gradient of 0.
                    weight.grad = None
