"""The stand-in for mmcv's compiled operators beside plain formulas."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("mmcv", reason="mmcv is optional (extra openmmlab) and not installed")

from headwise.models.adapters.openmmlab.operators import use_torch_operators

if not use_torch_operators():
    pytest.skip("mmcv has its compiled operators here", allow_module_level=True)

from mmcv.ops import RoIAlign, nms, soft_nms
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_is_the_greedy_loop(offset: int) -> None:
    torch.manual_seed(0)
    corner = 20 * torch.rand(40, 2)
    boxes, scores = torch.cat([corner, corner + 5 + 10 * torch.rand(40, 2)], 1), torch.rand(40)

    def area(box: list[float]) -> float:
        return max(0.0, box[2] - box[0] + offset) * max(0.0, box[3] - box[1] + offset)

    def overlap(a: list[float], b: list[float]) -> float:
        both = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
        inter = area(both) if both[2] + offset > both[0] and both[3] + offset > both[1] else 0.0
        return inter / (area(a) + area(b) - inter)

    chosen: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap(boxes[i].tolist(), boxes[j].tolist()) <= 0.4 for j in chosen):
            chosen.append(i)
    boxes_and_scores, indices = nms(boxes, scores, 0.4, offset=offset)
    assert indices.tolist() == chosen
    torch.testing.assert_close(boxes_and_scores, torch.cat([boxes, scores[:, None]], 1)[chosen])


def test_roi_align_of_whole_pixels_is_their_mean_and_has_its_gradient() -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0.0, 2, 2, 6, 6], [1.0, 0, 4, 4, 8]], dtype=torch.float64)
    align = RoIAlign((2, 2), sampling_ratio=2, aligned=True)
    # Four samples a bin, at pixel centres: bins of 2 x 2 pixels are means of these pixels.
    expected = torch.stack([F.avg_pool2d(x[0, :, 2:6, 2:6], 2), F.avg_pool2d(x[1, :, 4:8, 0:4], 2)])
    torch.testing.assert_close(align(x, rois), expected)
    assert torch.autograd.gradcheck(lambda part: align(part, rois), (x,))
    with pytest.raises(NotImplementedError, match="pool_mode 'max'"):
        RoIAlign((2, 2), pool_mode="max")(x, rois)


def test_deformable_attention_with_its_gradients() -> None:
    torch.manual_seed(0)
    shapes, starts = torch.tensor([[4, 3], [2, 2]]), torch.tensor([0, 12])
    value = torch.randn(2, 16, 2, 4, dtype=torch.float64, requires_grad=True)
    locations = torch.rand(2, 5, 2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 5, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    inputs = (value, locations, weights)
    out = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    plain = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(out, plain)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(plain, inputs, grad)
    )


def test_what_is_not_covered_says_so() -> None:
    with pytest.raises(NotImplementedError, match="softnms needs mmcv compiled"):
        soft_nms(torch.rand(3, 4), torch.rand(3))
