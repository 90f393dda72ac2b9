"""Scenes for mmsegmentation: a data set, steps of its pipelines, and the preprocessor of batches.

Shapes: Y x X pixels. Depth is the fourth channel of `img`, (Y, X, 4), so that those steps of
mmsegmentation that move pixels (RandomFlip, RandomCrop, RandomResize, Pad) move it, too; its steps
that change colours take three channels, and `VaryScene` replaces them. Channels are blue, green,
red, in the order of mmcv, and depth, 0 to 255, near things bright.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from mmcv.transforms.base import BaseTransform
from mmseg.datasets.basesegdataset import BaseSegDataset
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from PIL import Image

from ....base.errors import fail
from ....data.formats.pictures import as_array, read_picture, resized
from ....data.scenes.depths import Near, read_depth
from ....data.scenes.inputs import list_scenes
from ....data.scenes.masks import read_mask
from ....data.scenes.scenes import read_rgbd_set
from ..augment import BLANK, DEVIATION, MEAN, vary
from ..options import SaliencyOptions

Size = tuple[int, int] | None


@DATASETS.register_module()
class RGBDSaliencyDataset(BaseSegDataset):
    """Scenes of RGB, depth and mask in every layout that `headwise saliency train --data` reads.

    data_root: folder or table; depth, masks: their folders, if the names do not tell; part:
    "train", "validation" or "test" (scenes of no part belong to each), or None for all; unmatched:
    what to do about pictures without depth or mask, "error" or "skip". A sample has img_path,
    depth_path, seg_map_path and set, the name of its data set.

    Raises `InputError`, one line, for what is missing or does not fit.
    """

    METAINFO: dict = {"classes": ("background", "salient"), "palette": [[0, 0, 0], [255, 255, 255]]}  # noqa: RUF012

    def __init__(
        self,
        data_root: str,
        *,
        depth: str | None = None,
        masks: str | None = None,
        part: Literal["train", "validation", "test"] | None = None,
        unmatched: Literal["error", "skip"] = "error",
        **options: Any,
    ) -> None:
        self.scenes = read_rgbd_set(data_root, depth=depth, mask=masks, strict=unmatched == "error")
        rows = self.scenes.rows() if part is None else self.scenes.rows(part, "")
        if not len(rows):
            raise fail(data_root, f"holds no scenes of the part {part}")
        self.rows = rows.tolist()
        super().__init__(data_root=data_root, reduce_zero_label=False, **options)

    def _join_prefix(self) -> None:
        """Paths are complete already."""

    def load_data_list(self) -> list[dict]:
        """One dict per scene."""
        s = self.scenes
        return [
            {
                "img_path": s.images[row],
                "depth_path": s.depths[row],
                "seg_map_path": s.masks[row],
                "set": s.sets[row],
                "label_map": None,
                "reduce_zero_label": False,
                "seg_fields": [],
            }
            for row in self.rows
        ]


@TRANSFORMS.register_module()
class LoadPicture(BaseTransform):
    """Read `img` (Y, X, 3) from img_path as Headwise does: upright, white behind transparency, of
    bounded size.

    Raises `InputError`, one line, for a file that cannot be read.
    """

    def transform(self, results: dict) -> dict:
        """See the class."""
        results["img"] = np.ascontiguousarray(
            read_picture(results["img_path"])[::-1].transpose(1, 2, 0)
        )
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadDepth(BaseTransform):
    """Resize `img` and append the depth, (Y, X, 4) float32.

    The depth is read from depth_path; without one (`inference_model` of a file), it is looked for
    in the folder of depth next to that of the picture; arrays may have it as their fourth channel,
    near things bright. A picture without any gets a blank depth, or raises `InputError` with
    missing="error". near: whether near things are bright or dark in the files; size: (height,
    width), or None to keep that of the picture.
    """

    def __init__(
        self, near: Near = "bright", size: Size = None, missing: Literal["blank", "error"] = "blank"
    ) -> None:
        self.near: Near = near
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.missing = missing

    def transform(self, results: dict) -> dict:
        """See the class."""
        pixels = results["img"]
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError(f"LoadDepth: img must be (Y, X, 3 or 4), got {pixels.shape}")
        size = self.size or pixels.shape[:2]
        colour = np.clip(pixels[:, :, :3], 0, 255).astype(np.uint8)
        colour = as_array(Image.fromarray(colour), size).transpose(1, 2, 0)
        has_depth = pixels.shape[2] == 4
        depth = resized(pixels[:, :, 3], size) if has_depth else self._depth(results, size)
        results["img"] = np.dstack([colour.astype(np.float32), depth])
        results["img_shape"] = results["img"].shape[:2]
        return results

    def _depth(self, results: dict, size: tuple[int, int]) -> np.ndarray:
        path, picture = results.get("depth_path"), results.get("img_path")
        if path is None and picture is not None:
            path = list_scenes(picture)[0][2]
        if path is not None:
            return 255 * read_depth(path, self.near, size)[0]
        if self.missing == "error":
            raise fail(picture or "an array of three channels", "has no depth map")
        return np.full(size, 255 * BLANK, np.float32)


@TRANSFORMS.register_module()
class LoadSaliencyMask(BaseTransform):
    """Read `gt_seg_map` (Y, X), 1 where something is salient, from seg_map_path.

    size: (height, width), or None to keep that of the file, as for tests. A sample without a mask,
    for which there is only a prediction, passes unchanged.
    """

    def __init__(self, size: Size = None) -> None:
        self.size = None if size is None else (int(size[0]), int(size[1]))

    def transform(self, results: dict) -> dict:
        """See the class."""
        if results.get("seg_map_path") is not None:
            results["gt_seg_map"] = read_mask(results["seg_map_path"], self.size).astype(np.uint8)
            results.setdefault("seg_fields", []).append("gt_seg_map")
        return results


@TRANSFORMS.register_module()
class VaryScene(BaseTransform):
    """Headwise's random variation of training scenes, with the options of `headwise saliency
    train`.
    """

    def __init__(
        self,
        flip: bool = True,
        zoom: float = 0.3,
        turn: float = 10.0,
        colour: float = 0.3,
        blank: float = 0.1,
    ) -> None:
        self.options = SaliencyOptions(flip=flip, zoom=zoom, turn=turn, colour=colour, blank=blank)

    def transform(self, results: dict) -> dict:
        """`img` (Y, X, 4) and `gt_seg_map`, of one size."""
        scene = torch.from_numpy(results["img"]).permute(2, 0, 1)[None].float() / 255
        mask = torch.from_numpy(results["gt_seg_map"])[None, None].float()
        image, depth, mask = vary(scene[:, :3], scene[:, 3:], mask, self.options)
        results["img"] = (
            (255 * torch.cat([image, depth], 1)[0]).permute(1, 2, 0).contiguous().numpy()
        )
        results["gt_seg_map"] = mask[0, 0].numpy().astype(np.uint8)
        return results


@MODELS.register_module()
class RGBDPreprocessor(SegDataPreProcessor):
    """Batches (B, 4, Y, X): red, green, blue and depth, normalised as for Headwise's models.

    Any model of mmsegmentation whose backbone has in_channels=4 takes them. mean, std: of red,
    green, blue and depth, 0 to 255; options: those of `SegDataPreProcessor`. Without a size, sides
    are padded to multiples of 32.
    """

    def __init__(
        self,
        mean: Sequence[Any] = (*(255 * x for x in MEAN), 127.5),
        std: Sequence[Any] = (*(255 * x for x in DEVIATION), 63.75),
        **options: Any,
    ) -> None:
        if len(mean) != 4 or len(std) != 4:
            lengths = f"{len(mean)} and {len(std)}"
            raise ValueError(f"RGBDPreprocessor: mean and std are of four channels, got {lengths}")
        if "size" not in options and "size_divisor" not in options:
            options |= {
                "size_divisor": 32,
                "test_cfg": options.get("test_cfg", {"size_divisor": 32}),
            }
        super().__init__(mean=mean, std=std, **options)

    def forward(self, data: dict, training: bool = False) -> dict:
        """See the class."""
        inputs = [x[[2, 1, 0, 3]] for x in data["inputs"]]
        return super().forward({**data, "inputs": inputs}, training)
