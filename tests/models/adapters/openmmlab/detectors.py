"""Small detectors of mmdetection with random weights, and images to train them on."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WIDTH, HIDDEN = 256, 48  # mmdet's DINO works at width 256 only
CLASSES = ("square", "bar")


def config(kind: str = "DINO") -> dict:
    """DINO or Deformable DETR on a thin ResNet-18, without pretrained weights."""
    attention = {
        "embed_dims": WIDTH,
        "num_levels": 3,
        "num_points": 2,
        "num_heads": 4,
        "dropout": 0.0,
    }
    network = {"embed_dims": WIDTH, "feedforward_channels": HIDDEN, "ffn_drop": 0.0}
    self_attention = {"embed_dims": WIDTH, "num_heads": 4, "dropout": 0.0}
    dino = kind == "DINO"
    decoder = {
        "num_layers": 2,
        "return_intermediate": True,
        "layer_cfg": {
            "self_attn_cfg": self_attention | ({} if dino else {"batch_first": True}),
            "cross_attn_cfg": attention | ({} if dino else {"batch_first": True}),
            "ffn_cfg": network,
        },
    }
    head = {
        "type": f"{kind}Head",
        "num_classes": 2,
        "embed_dims": WIDTH,
        "sync_cls_avg_factor": True,
        "loss_cls": {
            "type": "FocalLoss",
            "use_sigmoid": True,
            "gamma": 2.0,
            "alpha": 0.25,
            "loss_weight": 1.0,
        },
        "loss_bbox": {"type": "L1Loss", "loss_weight": 5.0},
        "loss_iou": {"type": "GIoULoss", "loss_weight": 2.0},
    }
    settings = {
        "type": kind,
        "num_queries": 20,
        "with_box_refine": True,
        "as_two_stage": True,
        "num_feature_levels": 3,
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": [127.5] * 3,
            "std": [60.0] * 3,
            "bgr_to_rgb": True,
        },
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "base_channels": 8,
            "num_stages": 4,
            "out_indices": (1, 2, 3),
            "norm_cfg": {"type": "BN"},
            "style": "pytorch",
            "init_cfg": None,
        },
        "neck": {
            "type": "ChannelMapper",
            "in_channels": [16, 32, 64],
            "kernel_size": 1,
            "out_channels": WIDTH,
            "act_cfg": None,
            "norm_cfg": {"type": "GN", "num_groups": 4},
            "num_outs": 3,
        },
        "encoder": {
            "num_layers": 1,
            "layer_cfg": {
                "self_attn_cfg": attention | ({} if dino else {"batch_first": True}),
                "ffn_cfg": network,
            },
        },
        "decoder": decoder,
        "positional_encoding": {"num_feats": WIDTH // 2, "normalize": True},
        "bbox_head": head,
        "train_cfg": {
            "assigner": {
                "type": "HungarianAssigner",
                "match_costs": [
                    {"type": "FocalLossCost", "weight": 2.0},
                    {"type": "BBoxL1Cost", "weight": 5.0},
                    {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0},
                ],
            }
        },
        "test_cfg": {"max_per_img": 10},
    }
    if dino:
        settings["dn_cfg"] = {
            "label_noise_scale": 0.5,
            "box_noise_scale": 1.0,
            "group_cfg": {"dynamic": True, "num_groups": None, "num_dn_queries": 10},
        }
        settings["decoder"]["post_norm_cfg"] = None
    else:
        settings["decoder"]["post_norm_cfg"] = None
    return settings


def build(kind: str = "DINO", seed: int = 0):
    """The detector, its weights drawn."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules()
    torch.manual_seed(seed)
    model = MODELS.build(config(kind))
    model.init_weights()
    return model


def batch(count: int = 2, side: int = 96):
    """Random images and boxes as mmdetection's data samples."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    draw = torch.Generator().manual_seed(3)
    images, samples = [], []
    for _ in range(count):
        images.append(torch.randint(0, 256, (3, side, side), generator=draw, dtype=torch.uint8))
        sample = DetDataSample()
        corner = torch.rand(3, 2, generator=draw) * side / 2
        size = 10 + torch.rand(3, 2, generator=draw) * side / 3
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + size], 1),
            labels=torch.randint(0, 2, (3,), generator=draw),
        )
        shape = (side, side)
        sample.set_metainfo(
            {
                "img_shape": shape,
                "ori_shape": shape,
                "batch_input_shape": shape,
                "pad_shape": shape,
                "scale_factor": (1.0, 1.0),
                "img_id": 0,
                "img_path": "generated",
            }
        )
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


def write_coco(folder: Path, count: int = 8, side: int = 96) -> Path:
    """Bright squares and bars on dark ground, as images and a COCO file."""
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(count):
        pixels = draw.integers(0, 40, (side, side, 3), dtype=np.uint8)
        for kind in (0, 1):
            height, width = (24, 24) if kind == 0 else (12, 44)
            y, x = draw.integers(0, side - 44, 2).tolist()
            pixels[y : y + height, x : x + width] = 255 if kind == 0 else 160
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": i,
                    "category_id": kind + 1,
                    "iscrowd": 0,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                }
            )
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": side, "width": side})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    path = folder / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path
