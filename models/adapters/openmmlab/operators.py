"""A stand-in for the compiled operators of mmcv, which do not build on current PyTorch without
patches.

mmdetection and mmsegmentation import `mmcv._ext` unconditionally, so with mmcv-lite not one of
their models can be imported. `use_torch_operators` puts a module of that name there. It covers, on
any device: non-maximum suppression and RoI align (by torchvision), multi-scale deformable attention
(by mmcv's own plain form, slower than the compiled one on a GPU). Any other operator can be
imported and raises NotImplementedError when it is called."""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ....base.extras import install_line

NAME = "mmcv._ext"


def use_torch_operators() -> bool:
    """Put the stand-in in place where mmcv has no compiled operators; True if it is in use. Call it
    before models of mmdet or mmseg are imported.

    Raises ImportError without mmcv.
    """
    if NAME in sys.modules:
        return isinstance(sys.modules[NAME], _StandIn)
    if find_spec("mmcv") is None:
        raise ImportError(f"mmcv is not installed: {install_line('openmmlab')}")
    if find_spec(NAME) is not None:
        return False
    sys.modules[NAME] = _StandIn(NAME)
    early = sys.modules.get("mmcv.cnn.bricks.transformer")
    if early is not None and not hasattr(early, "MultiScaleDeformableAttention"):
        # Imported before, it did without this name, which mmdetection takes from it.
        from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention

        early.MultiScaleDeformableAttention = MultiScaleDeformableAttention  # type: ignore[attr-defined]
    return True


class _StandIn(ModuleType):
    """Has every operator's name; those that it does not cover refuse when called."""

    def __init__(self, name: str) -> None:
        super().__init__(name, __doc__)
        self.__spec__ = ModuleSpec(name, None)  # mmengine reads it
        self.nms, self.roi_align_forward, self.roi_align_backward = (
            nms,
            roi_align_forward,
            roi_align_backward,
        )
        self.ms_deform_attn_forward, self.ms_deform_attn_backward = (
            deformable_forward,
            deformable_backward,
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> None:
            raise NotImplementedError(
                f"mmcv's operator {name} needs mmcv compiled with operators, not mmcv-lite"
            )

        return refuse


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes (N, 4) that stay, by falling score. offset: 1 where a box's right and
    lower edge count.
    """
    from torchvision.ops import nms as kept

    # Widths and heights of x2 - x1 + offset are those of boxes whose far corner is moved by it.
    far = torch.tensor([0, 0, offset, offset], dtype=boxes.dtype, device=boxes.device)
    return kept(boxes + far, scores, iou_threshold)


def roi_align_forward(
    x: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write means (pool_mode 1) of bilinear samples of x (B, C, H, W) in rois (R, 5) into
    output.
    """
    _average(pool_mode)
    from torchvision.ops import roi_align

    output.copy_(
        roi_align(x, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    )


def roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    d_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of x."""
    _average(pool_mode)
    from torchvision.ops import roi_align

    with torch.enable_grad():
        x = torch.zeros_like(d_x, requires_grad=True)  # it is linear in x, so any x will do
        out = roi_align(
            x, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
        )
    d_x.copy_(torch.autograd.grad(out, x, grad)[0])


def _average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "mmcv's roi_align with pool_mode 'max' needs mmcv compiled with operators"
        )


def deformable_forward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159): (B, queries, width)."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def deformable_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad: Tensor,
    d_value: Tensor,
    d_locations: Tensor,
    d_weights: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Write the gradients of value, locations and weights."""
    with torch.enable_grad():
        inputs = [part.detach().requires_grad_() for part in (value, locations, weights)]
        out = deformable_forward(
            inputs[0], shapes, starts, inputs[1], inputs[2], im2col_step=im2col_step
        )
    for place, part in zip(
        (d_value, d_locations, d_weights), torch.autograd.grad(out, inputs, grad)
    ):
        place.copy_(part)
