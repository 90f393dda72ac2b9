"""Detectors of mmdetection for crops: the boxes of mmdet's own inference, and no code of a
checkpoint is run.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("mmdet", reason="mmdetection is optional (extra openmmlab) and not installed")

from PIL import Image

from headwise.models.adapters.openmmlab.detector import Detector
from headwise.tests.hostile import Bomb

# A RetinaNet of mmdet, thin, with random weights: two classes.
CONFIG = """
default_scope = "mmdet"
model = dict(
    type="RetinaNet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.5] * 3,
        std=[60.0] * 3,
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        base_channels=8,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="BN"),
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18"),
    ),
    neck=dict(
        type="FPN",
        in_channels=[8, 16, 32, 64],
        out_channels=16,
        start_level=1,
        add_extra_convs="on_input",
        num_outs=5,
    ),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=2,
        in_channels=16,
        stacked_convs=1,
        feat_channels=16,
        anchor_generator=dict(
            type="AnchorGenerator",
            octave_base_scale=4,
            scales_per_octave=1,
            ratios=[1.0],
            strides=[8, 16, 32, 64, 128],
        ),
    ),
    test_cfg=dict(
        nms_pre=100,
        min_bbox_size=0,
        score_thr=0.0,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=10,
    ),
)
steps = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 128), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
classes = ("car", "person")
test_dataloader = dict(
    dataset=dict(type="CocoDataset", metainfo=dict(classes=classes), pipeline=steps)
)
"""


@pytest.fixture(scope="module")
def config_and_checkpoint(tmp_path_factory) -> tuple[Path, Path]:
    """Config and checkpoint."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    from headwise.models.adapters.openmmlab.operators import use_torch_operators

    home = tmp_path_factory.mktemp("detector")
    (home / "tiny.py").write_text(CONFIG)
    use_torch_operators()
    register_all_modules()
    torch.manual_seed(3)
    settings = Config.fromfile(home / "tiny.py")
    settings.model.backbone.init_cfg = None
    model = MODELS.build(settings.model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 1}}, home / "tiny.pth")
    return home / "tiny.py", home / "tiny.pth"


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)


def test_boxes_are_those_of_mmdets_own_inference(config_and_checkpoint, tmp_path) -> None:
    from mmdet.apis import inference_detector, init_detector
    from mmengine.config import Config

    detector = Detector(*config_and_checkpoint)
    assert detector.class_names == ("car", "person")
    detected = detector(picture())
    assert len(detected.boxes) == 10
    Image.fromarray(picture()).save(tmp_path / "a.png")
    settings = Config.fromfile(config_and_checkpoint[0])
    settings.model.backbone.init_cfg = None
    theirs = init_detector(settings, None, device="cpu", palette="random")
    theirs.load_state_dict(torch.load(config_and_checkpoint[1], weights_only=True)["state_dict"])
    theirs.eval()
    expected = inference_detector(theirs, str(tmp_path / "a.png")).pred_instances
    torch.testing.assert_close(
        torch.from_numpy(detected.boxes), expected.bboxes, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(torch.from_numpy(detected.scores), expected.scores)
    assert detected.labels.tolist() == expected.labels.tolist()


def test_by_the_command_line(config_and_checkpoint, headwise, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "1.png")
    config, checkpoint = config_and_checkpoint
    command = (
        "reid",
        "crop",
        "--input",
        tmp_path / "in",
        "--config",
        config,
        "--checkpoint",
        checkpoint,
    )
    code, lines = headwise(
        *command, "--output", tmp_path / "out", "--least-score", "0", "--least", "1"
    )
    assert code == 0, lines
    table = pl.read_csv(tmp_path / "out" / "crops.csv")
    detected = Detector(*config_and_checkpoint)(picture())
    assert table["score"].to_list() == pytest.approx(
        detected.scores[detected.labels == 1].tolist(), abs=1e-6
    )
    code, lines = headwise(*command, "--output", tmp_path / "other", "--classes", "persn")
    assert code == 2
    assert "no such class" in lines[-1]
    assert "person" in lines[-1]


def test_a_checkpoint_with_code_or_of_another_model_is_refused(
    config_and_checkpoint, tmp_path
) -> None:
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="without running its code"):
        Detector(config_and_checkpoint[0], tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    weights = torch.load(config_and_checkpoint[1], weights_only=True)["state_dict"]
    name = next(iter(weights))
    torch.save(
        {"state_dict": {k: v for k, v in weights.items() if k != name}}, tmp_path / "less.pth"
    )
    with pytest.raises(ValueError, match=f"weights of another model.*no {name}"):
        Detector(config_and_checkpoint[0], tmp_path / "less.pth")
    torch.save({"state_dict": weights | {name: torch.zeros(2, 2)}}, tmp_path / "shape.pth")
    with pytest.raises(ValueError, match="weights of another model"):
        Detector(config_and_checkpoint[0], tmp_path / "shape.pth")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "model: {}", "is a .py or .json file"),
        ("a.py", "model = (", "cannot be read"),
        ("a.py", "x = 1", "names no model"),
        ("a.py", 'model = dict(type="RetinaNett")', "no detector can be built"),
    ],
)
def test_configs_that_cannot_be_used(config_and_checkpoint, tmp_path, name, text, message) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        Detector(tmp_path / name, config_and_checkpoint[1])
    assert "\n" not in str(error.value)
