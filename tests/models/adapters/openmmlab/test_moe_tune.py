"""Experts in mmdetection's decoders: the same function at first, trained by mmengine, merged
back.
"""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("mmdet", reason="mmdetection is optional (extra openmmlab) and not installed")

sys.path.insert(0, str(Path(__file__).parent))

import detectors
from mmcv.cnn.bricks.transformer import FFN

from headwise.models.adapters.openmmlab.checkpoints import load_weights
from headwise.models.adapters.openmmlab.moe_tune import (
    MoEFFN,
    RoutingHook,
    experts_of,
    moe_merge,
    moe_tune,
)
from headwise.models.moe.layer import MoE
from headwise.tests.models.contracts import assert_evaluation_is_without_dropout

sys.path.pop(0)

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def predictions(model, data: dict) -> list[torch.Tensor]:
    model.eval()
    with torch.no_grad():
        samples = model(**copy.deepcopy(data), mode="predict")
    return [
        part
        for sample in samples
        for part in (sample.pred_instances.scores, sample.pred_instances.bboxes)
    ]


def prepared(model) -> dict:
    return model.data_preprocessor(detectors.batch(), False)


class TestFeedForward:
    @pytest.mark.parametrize("act", ["ReLU", "GELU"])
    def test_it_is_the_network_at_first_and_its_gradients_are_the_same(self, act: str) -> None:
        torch.manual_seed(0)
        network = FFN(12, 20, act_cfg={"type": act}).double()
        tuned = MoEFFN(network, 3, 2, balance=0.0).double()
        x, position = (torch.randn(2, 9, 12, dtype=torch.float64) for _ in range(2))
        torch.testing.assert_close(tuned(x), network(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tuned(x, position), network(x, position), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tuned.dense()(x), network(x), rtol=1e-12, atol=1e-12)
        # Whatever copies a token takes, together they get the gradient of the one network.
        grad = torch.randn(2, 9, 12, dtype=torch.float64)
        tuned(x).backward(grad)
        network(x).backward(grad)
        up = tuned.moe.experts.up.grad.view(3, 20, 12).sum(0)
        torch.testing.assert_close(up, network.layers[0][0].weight.grad, rtol=1e-11, atol=1e-11)
        down = tuned.moe.experts.down.grad.view(3, 2, 12, 10).sum(0).transpose(0, 1).flatten(1)
        torch.testing.assert_close(down, network.layers[1].weight.grad, rtol=1e-11, atol=1e-11)

    def test_dropout_is_off_in_evaluation(self) -> None:
        torch.manual_seed(0)
        plain, dropping = (
            FFN(8, 8),
            FFN(8, 8, ffn_drop=0.5, dropout_layer={"type": "Dropout", "drop_prob": 0.5}),
        )
        dropping.load_state_dict(plain.state_dict())
        x = torch.randn(2, 5, 8)
        assert_evaluation_is_without_dropout(
            MoEFFN(dropping, 2, 2), MoEFFN(plain, 2, 2), lambda network: network(x)
        )

    def test_without_identity_and_with_scale(self) -> None:
        network = FFN(8, 8, add_identity=False, layer_scale_init_value=0.3)
        tuned, x = MoEFFN(network, 2, 2), torch.randn(1, 5, 8)
        torch.testing.assert_close(tuned(x), network(x))
        torch.testing.assert_close(tuned.dense()(x), network(x))

    def test_what_cannot_be_cut_is_refused(self) -> None:
        with pytest.raises(ValueError, match="two linear layers"):
            MoEFFN(FFN(8, 8, num_fcs=3), 2, 2)
        with pytest.raises(ValueError, match="ReLU, GELU, SiLU"):
            MoEFFN(FFN(8, 8, act_cfg={"type": "Tanh"}), 2, 2)
        with pytest.raises(ValueError, match="must divide the inner width 9"):
            MoEFFN(FFN(8, 9), 2, 2)


@pytest.mark.parametrize("kind", ["DINO", "DeformableDETR"])
def test_a_detector_predicts_the_same_and_learns(kind: str) -> None:
    model = detectors.build(kind)
    data = prepared(model)
    before = predictions(model, data)
    assert moe_tune(model, copies=4) is model
    assert len(list(experts_of(model))) == 2
    torch.testing.assert_close(predictions(model, data), before, rtol=1e-4, atol=1e-4)
    model.train()
    losses = model(**copy.deepcopy(data), mode="loss")
    assert float(losses["loss_moe"]) == pytest.approx(
        sum(0.01 * balance(layer) for layer in experts_of(model))
    )
    total, shown = model.parse_losses(losses)
    assert "loss_moe" in shown
    total.backward()
    for layer in experts_of(model):
        assert layer.router.gate.weight.grad.abs().sum() > 0
        assert layer.experts.up.grad.abs().sum() > 0
    again = copy.deepcopy(model)
    torch.testing.assert_close(predictions(again, data), before, rtol=1e-4, atol=1e-4)
    moe_merge(again)
    assert type(again).__name__ == kind
    assert not list(experts_of(again))
    torch.testing.assert_close(predictions(again, data), before, rtol=1e-4, atol=1e-4)
    assert set(again.state_dict()) == set(detectors.build(kind).state_dict())


def balance(layer: MoE) -> float:
    """The load balance, from what the layer says of itself."""
    assert layer.routing is not None
    share = layer.routing.counts.sum(0).double() / layer.routing.counts.sum()
    return float(layer.experts.experts * (share * layer.routing.probability.double()).sum())


def test_grounding_dino_decoder() -> None:
    """The decoder alone: the whole detector reads text with BERT, whose files are not here."""
    from mmdet.models.layers.transformer.grounding_dino_layers import (
        GroundingDinoTransformerDecoder,
    )

    attention = {"embed_dims": 256, "num_heads": 8, "dropout": 0.0}

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = {
                "self_attn_cfg": attention,
                "cross_attn_text_cfg": attention,
                "cross_attn_cfg": {"embed_dims": 256, "num_levels": 1},
                "ffn_cfg": {"embed_dims": 256},
            }
            self.decoder = GroundingDinoTransformerDecoder(
                num_layers=2, layer_cfg=layer, post_norm_cfg=None, return_intermediate=True
            )
            self.encoder, self.bbox_head = nn.Module(), nn.Linear(256, 4)
            self.encoder.fusion_layers, self.encoder.layers = nn.Linear(2, 2), nn.Linear(2, 2)

        def loss(self, x: torch.Tensor) -> dict:
            return {"loss": self(x).square().mean()}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(1)
            return self.decoder(
                x,
                value=torch.randn(1, 16, 256),
                key_padding_mask=None,
                self_attn_mask=None,
                reference_points=torch.rand(1, 6, 4),
                spatial_shapes=torch.tensor([[4, 4]]),
                level_start_index=torch.tensor([0]),
                valid_ratios=torch.ones(1, 1, 2),
                reg_branches=[nn.Linear(256, 4) for _ in range(2)],
                memory_text=torch.randn(1, 5, 256),
                text_attention_mask=torch.zeros(1, 5, dtype=torch.bool),
            )[0]

    model, x = Detector(), torch.randn(1, 6, 256)
    before = model(x)
    moe_tune(model, copies=2, slices=4, train="experts")
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if ".ffn." in name or name.startswith(("bbox_head.", "encoder.fusion_layers."))
    }
    assert "encoder.layers.weight" not in trained
    assert set(model.loss(x)) == {"loss", "loss_moe"}
    model.eval()
    model(x)
    assert set(model.loss(x)) == {"loss"}


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="Linear has no decoder whose layers have an FFN"):
        moe_tune(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="train must be"):
        moe_tune(nn.Linear(2, 2), train="some")
    with pytest.raises(ValueError, match="Linear has no experts"):
        moe_merge(nn.Linear(2, 2))
    model = moe_tune(detectors.build())
    with pytest.raises(ValueError, match="not yet tuned"):
        moe_tune(model)


def runner_config(folder: Path, model: dict) -> dict:
    """What a user would write for mmengine, small."""
    pipeline = [
        {"type": "LoadImageFromFile", "backend_args": None},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "PackDetInputs"},
    ]
    data = {
        "type": "CocoDataset",
        "ann_file": str(detectors.write_coco(folder / "data")),
        "data_prefix": {"img": str(folder / "data" / "images")},
        "metainfo": {"classes": detectors.CLASSES},
        "pipeline": pipeline,
        "backend_args": None,
    }
    return {
        "model": model,
        "work_dir": str(folder / "work"),
        "default_scope": "mmdet",
        "train_dataloader": {
            "batch_size": 4,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "dataset": data,
        },
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 15},
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": 3e-4},
            "clip_grad": {"max_norm": 1.0},
        },
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": 15},
            "logger": {"type": "LoggerHook", "interval": 2},
        },
        "custom_hooks": [{"type": "RoutingHook", "interval": 2}],
        "randomness": {"seed": 0},
        "log_level": "ERROR",
        "experiment_name": folder.name,
    }


def test_mmengine_trains_it_from_a_config_and_a_checkpoint(tmp_path: Path) -> None:
    from mmengine.config import Config
    from mmengine.runner import Runner

    dense = detectors.build()
    torch.save({"state_dict": dense.state_dict(), "meta": {}}, tmp_path / "dense.pth")
    model = {
        "type": "MoETuned",
        "detector": detectors.config(),
        "checkpoint": str(tmp_path / "dense.pth"),
        "copies": 2,
    }
    runner = Runner.from_cfg(Config(runner_config(tmp_path, model)))
    data = prepared(runner.model)
    torch.testing.assert_close(
        predictions(runner.model, data), predictions(dense, data), rtol=1e-4, atol=1e-4
    )
    runner.train()
    scalars = runner.message_hub.log_scalars
    losses = scalars["train/loss"].data[0]
    assert losses[-4:].mean() < 0.8 * losses[:4].mean()
    assert len(scalars["train/loss_moe"].data[0]) == len(losses) == 30
    for i in (1, 2):
        assert 0 < scalars[f"train/moe{i}_entropy"].data[0][-1] <= torch.tensor(4.0).log()
        assert 0.25 <= scalars[f"train/moe{i}_top_load"].data[0][-1] <= 1
    # The file that mmengine wrote, with its history, read by the check that runs no code.
    path = tmp_path / "work" / "epoch_15.pth"
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    loaded = moe_tune(detectors.build(seed=1), copies=2)
    loaded.load_state_dict(load_weights(path))
    torch.testing.assert_close(
        predictions(loaded, data), predictions(runner.model, data), rtol=1e-5, atol=1e-5
    )


def test_the_hook_counts_training_alone() -> None:
    from types import SimpleNamespace

    scalars: dict[str, float] = {}
    layer = MoE(8, 8, experts=4)
    runner = SimpleNamespace(
        model=layer, iter=0, message_hub=SimpleNamespace(update_scalar=scalars.__setitem__)
    )
    hook = RoutingHook(interval=1)
    x = torch.randn(1, 30, 8)
    hook.before_train(runner)
    layer(x)
    hook.before_val(runner)
    layer(torch.zeros(1, 500, 8))
    hook.after_val(runner)
    hook.after_train_iter(runner, 0)
    layer(x)
    alone = layer.routing.counts.sum(0)
    assert scalars["train/moe1_top_load"] == pytest.approx(float(alone.max() / alone.sum()))
    hook.after_train(runner)
    hook.after_val(runner)  # a validation by itself, later
    assert not layer._forward_hooks


class Harm:
    """What a checkpoint must not be able to do."""

    def __reduce__(self) -> tuple:
        return print, ("ran",)


class Asks:
    """A method of another class by the way that mmengine's history takes."""

    def __reduce__(self) -> tuple:
        return getattr, (torch.Tensor, "numpy")


@pytest.mark.parametrize("inside", [Harm(), Asks()], ids=["call", "getattr"])
def test_a_checkpoint_runs_no_code(
    inside: object, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save({"state_dict": {}, "more": inside}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth: no checkpoint that can be read"):
        load_weights(tmp_path / "bad.pth")
    assert not capsys.readouterr().out
    torch.save([1], tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="without weights"):
        load_weights(tmp_path / "empty.pth")
