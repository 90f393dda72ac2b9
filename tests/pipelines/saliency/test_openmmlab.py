"""GL-DMNet in mmsegmentation: mmengine's Runner trains and tests it, and one set of weights gives
one map.
"""

import runpy

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip(
    "mmseg", reason="mmsegmentation is optional (extra openmmlab) and not installed"
)

from PIL import Image

from headwise.base.errors import InputError
from headwise.data.scenes.generate import draw_scene
from headwise.models.adapters.openmmlab.checkpoints import checkpoint_types, load_weights
from headwise.pipelines.metrics.saliency import saliency_scores
from headwise.pipelines.saliency.openmmlab import (
    CONFIG,
    GLDMNetSegmentor,
    LoadDepth,
    LoadPicture,
    LoadSaliencyMask,
    RGBDPreprocessor,
    RGBDSaliencyDataset,
    SaliencyMetric,
    VaryScene,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


@pytest.fixture(autouse=True)
def scope():
    """Names are looked up in mmsegmentation, whatever ran before in this process."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Eight scenes of two sizes, twice as large as the model sees them."""
    home = tmp_path_factory.mktemp("mmseg") / "scenes"
    for name in ("RGB", "depth", "GT"):
        (home / name).mkdir(parents=True)
    for k in range(8):
        for name, values in zip(("RGB", "depth", "GT"), draw_scene(k)):
            Image.fromarray(values[: 96 - 10 * (k % 2)]).save(home / name / f"s{k}.png")
    return home


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    from headwise import pipelines

    path = tmp_path_factory.mktemp("run") / "run"
    pipelines.saliency.train(
        run=path,
        data=str(home),
        max_steps=30,
        size=(32, 64),
        batch_size=2,
        validation_share=0.0,
        blank=0.0,
        choose="model",
    )
    return path


def settings(home, folder):
    """The config that ships, made small."""
    from mmengine.config import Config

    config = Config.fromfile(CONFIG)
    small = (32, 64)
    for name in ("train", "val", "test"):
        loader = config[f"{name}_dataloader"]
        loader.num_workers, loader.persistent_workers, loader.batch_size = 0, False, 4
        loader.dataset.data_root = str(home)
        for step in loader.dataset.pipeline:
            if "size" in step:
                step["size"] = small
    config.test_pipeline = config.test_dataloader.dataset.pipeline
    config.train_cfg.max_epochs = 6
    config.train_cfg.val_interval = config.default_hooks.checkpoint.interval = 3
    config.default_hooks.logger.interval = 1
    config.work_dir, config.log_level = str(folder), "ERROR"
    return config


def test_the_runner_trains_and_tests_by_the_config_that_ships(home, tmp_path) -> None:
    from mmengine.hooks import Hook
    from mmengine.runner import Runner
    from mmseg.apis import init_model

    config = settings(home, tmp_path / "work")
    config.custom_hooks = [{"type": "StagesHook", "encoder": 1, "transformer": 1}]
    config.test_evaluator = {"type": "SaliencyMetric", "output_dir": str(tmp_path / "maps")}
    runner = Runner.from_cfg(config)
    start = {name: value.clone() for name, value in runner.model.state_dict().items()}
    moved = {}

    class Look(Hook):
        def after_train_epoch(self, runner):
            now = runner.model.state_dict()
            moved[runner.epoch] = {
                name for name, value in now.items() if not torch.equal(value, start[name])
            }
            start.update({name: value.clone() for name, value in now.items()})

    runner.register_hook(Look())
    runner.train()
    for epoch, (encoders, stages) in enumerate([(False, True), (True, False), (True, True)]):
        assert any(name.startswith(("net.rgb.", "net.depth.")) for name in moved[epoch]) == encoders
        assert any(name.startswith("net.stages.") for name in moved[epoch]) == stages
        assert any(name.startswith("net.heads.") for name in moved[epoch])
    scalars = runner.message_hub.log_scalars
    losses = scalars["train/loss"].data[0]
    assert len(losses) == 12
    assert losses[-3:].mean() < losses[:3].mean()
    scores = runner.test()
    with checkpoint_types():
        again = init_model(config, str(tmp_path / "work" / "epoch_6.pth"), device="cpu")
    assert all(
        torch.equal(value, runner.model.state_dict()[name])
        for name, value in again.state_dict().items()
    )
    assert 0 < scores["saliency/S-measure"] < 1
    # The maps that it wrote have these scores.
    maps = sorted((tmp_path / "maps" / "scenes").glob("*.png"))
    assert len(maps) == 8
    mae = []
    for k, path in enumerate(maps):
        mask = np.asarray(Image.open(home / "GT" / f"s{k}.png").convert("L")) > 128
        levels = np.asarray(Image.open(path))
        mae.append(
            float(saliency_scores(torch.from_numpy(levels)[None], torch.from_numpy(mask)[None]).mae)
        )
    assert scores["saliency/MAE"] == pytest.approx(np.mean(mae), abs=1e-6)


def test_the_same_weights_give_the_same_maps(home, run, headwise, tmp_path) -> None:
    from mmengine.config import Config
    from mmseg.apis import inference_model, init_model

    words = ("--run", run, "--input", home / "RGB", "--output", tmp_path / "p.parquet")
    code, lines = headwise("saliency", "predict", *words)
    assert code == 0, lines
    config = settings(home, tmp_path / "work")
    config.model = {
        "type": "GLDMNetSegmentor",
        "run": str(run),
        "data_preprocessor": {"type": "RGBDPreprocessor"},
    }
    model = init_model(config, device="cpu")
    rows = pl.read_parquet(tmp_path / "p.parquet")
    assert rows["depth"].all()
    spread = 0
    for name in rows["item"]:
        predicted = inference_model(model, str(home / "RGB" / name))
        saliency = predicted.seg_logits.data[0]
        ours = np.asarray(Image.open(tmp_path / "p.parquet.maps" / name)).astype(np.float32)
        assert tuple(saliency.shape) == ours.shape
        # Rounding to 8 bits, and 4e-6.
        np.testing.assert_allclose(255 * saliency.numpy(), ours, atol=0.501)
        spread = max(spread, int(ours.max() - ours.min()))
        assert torch.equal(predicted.pred_sem_seg.data[0] == 1, saliency >= 0.5)
        # As an array with depth as its fourth channel, and several at once.
        colour = np.asarray(Image.open(home / "RGB" / name))[..., ::-1]
        depth = LoadDepth().transform(
            LoadPicture().transform({"img_path": str(home / "RGB" / name)})
        )["img"][..., 3]
        array = np.dstack([colour.astype(np.float32), depth])
        (again,) = inference_model(init_model(Config(config.to_dict()), device="cpu"), [array])
        torch.testing.assert_close(again.seg_logits.data[0], saliency, atol=1e-6, rtol=0)
    assert spread > 3, "the maps say nothing"


def test_a_checkpoint_of_mmengine_holds_the_weights_of_the_run(home, run, tmp_path) -> None:
    model = GLDMNetSegmentor(run=str(run))
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": model.dataset_meta}},
        tmp_path / "a.pth",
    )
    options = {"backbone": "small", "transformer": "small", "drop_path": 0.1}
    loaded = GLDMNetSegmentor(RGBDPreprocessor(), **options)
    loaded.load_state_dict(load_weights(tmp_path / "a.pth"))
    x = torch.randn(1, 4, 32, 32)
    torch.testing.assert_close(loaded.eval().encode_decode(x), model.eval().encode_decode(x))
    colour, depth = loaded.extract_feat(x)
    assert [tuple(level.shape[2:]) for level in colour] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert len(depth) == 4


def test_another_model_of_mmsegmentation_takes_four_channels(home) -> None:
    from mmengine.dataset import pseudo_collate
    from mmseg.registry import MODELS

    steps = [
        {"type": "LoadPicture"},
        {"type": "LoadDepth", "size": (64, 64)},
        {"type": "LoadSaliencyMask", "size": (64, 64)},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "RandomCrop", "crop_size": (48, 48)},
        {"type": "PackSegInputs"},
    ]
    dataset = RGBDSaliencyDataset(str(home), pipeline=steps)
    norm = {"type": "BN"}
    torch.manual_seed(0)
    model = MODELS.build(
        {
            "type": "EncoderDecoder",
            "data_preprocessor": {"type": "RGBDPreprocessor", "size": (48, 48)},
            "backbone": {
                "type": "ResNet",
                "depth": 18,
                "base_channels": 8,
                "in_channels": 4,
                "norm_cfg": norm,
            },
            "decode_head": {
                "type": "FCNHead",
                "in_channels": 64,
                "channels": 16,
                "num_classes": 2,
                "norm_cfg": norm,
            },
            "test_cfg": {"mode": "whole"},
        }
    )
    data = model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), True)
    assert data["inputs"].shape == (2, 4, 48, 48)
    losses = model(**data, mode="loss")
    assert torch.isfinite(losses["decode.loss_ce"])
    losses["decode.loss_ce"].backward()


def test_steps_move_colour_depth_and_mask_together() -> None:
    place = np.linspace(0, 255, 32, dtype=np.float32)[None].repeat(32, 0)
    sample = {"img": np.dstack([place] * 4), "gt_seg_map": (place > 128).astype(np.uint8)}
    torch.manual_seed(1)
    varied = VaryScene(flip=True, zoom=0.5, turn=0, colour=0, blank=0).transform(dict(sample))
    assert varied["img"].shape == (32, 32, 4)
    np.testing.assert_allclose(varied["img"][..., 0], varied["img"][..., 3], atol=1e-3)
    assert not np.allclose(varied["img"][..., 3], place, atol=1)
    clear = np.abs(varied["img"][..., 3] - 128) > 9
    assert ((varied["img"][..., 3] > 128) == (varied["gt_seg_map"] > 0))[clear].all()


def test_the_preprocessor_normalises_as_headwise_does() -> None:
    from headwise.pipelines.saliency.augment import normalise

    torch.manual_seed(0)
    image, depth = torch.randint(0, 256, (1, 3, 4, 5)), torch.rand(1, 1, 4, 5)
    expected = torch.cat(normalise(image, depth), 1)
    array = torch.cat([image.flip(1).float(), 255 * depth], 1)
    batch = RGBDPreprocessor(size_divisor=32)({"inputs": [array[0]], "data_samples": None})
    torch.testing.assert_close(batch["inputs"], expected)
    with pytest.raises(ValueError, match="four channels"):
        RGBDPreprocessor(mean=(0, 0, 0))


def test_scores_of_several_sets_are_named() -> None:
    metric = SaliencyMetric(by_set=True)
    torch.manual_seed(0)
    maps, masks = torch.rand(4, 1, 9, 12), torch.rand(4, 1, 9, 12) > 0.5
    samples = [
        {
            "set": "NLPR" if k < 3 else "SIP",
            "img_path": f"{k}.jpg",
            "seg_logits": {"data": maps[k]},
            "gt_sem_seg": {"data": masks[k].long()},
        }
        for k in range(4)
    ]
    metric.process({}, samples)
    scores = metric.evaluate(4)
    expected = saliency_scores(maps[:, 0], masks[:, 0])
    assert scores["saliency/MAE"] == pytest.approx(float(expected.mae.mean()), abs=1e-5)
    assert scores["saliency/NLPR MAE"] == pytest.approx(float(expected.mae[:3].mean()), abs=1e-5)
    assert scores["saliency/SIP max F-measure"] == pytest.approx(
        float(expected.f_curve[3].max()), abs=1e-5
    )


def test_a_run_settles_its_network(run) -> None:
    with pytest.raises(ValueError, match="settled by the run"):
        GLDMNetSegmentor(run=str(run), backbone="small")


def test_mistakes_are_one_line(home, tmp_path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        RGBDSaliencyDataset(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="not pretrained"):
        GLDMNetSegmentor(pretrained="a.pth")
    (tmp_path / "RGB").mkdir()
    (tmp_path / "RGB" / "a.jpg").write_bytes((home / "RGB" / "s0.png").read_bytes()[:500])
    with pytest.raises(InputError, match="truncated") as error:
        LoadPicture().transform({"img_path": str(tmp_path / "RGB" / "a.jpg")})
    assert "\n" not in str(error.value)
    Image.new("RGB", (8, 8)).save(tmp_path / "RGB" / "b.png")
    alone = LoadPicture().transform({"img_path": str(tmp_path / "RGB" / "b.png")})
    with pytest.raises(InputError, match="has no depth map"):
        LoadDepth(missing="error").transform(dict(alone))
    assert (LoadDepth().transform(dict(alone))["img"][..., 3] == 127.5).all()
    with pytest.raises(ValueError, match="3 or 4"):
        LoadDepth().transform({"img": np.zeros((4, 4), np.uint8)})
    assert LoadSaliencyMask().transform({"img_path": "a"}) == {"img_path": "a"}


def test_the_config_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("headwise.pipelines.saliency.openmmlab", run_name="__main__")
    assert capsys.readouterr().out == CONFIG.read_text()
