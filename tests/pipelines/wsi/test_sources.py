"""Where bags come from: features that are stored, of other tools, of other slides, or missing."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py", reason="h5py is optional (extra wsi) and not installed")
pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

import h5py

from headwise import pipelines
from headwise.base.account import Account, opened
from headwise.base.errors import InputError
from headwise.data.slides.features import read_features
from headwise.data.slides.generate import draw_slide, write_pyramid
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.wsi import extraction, sources
from headwise.pipelines.wsi.options import CrossvalOptions, WsiOptions, check

OURS = {"encoder": "random-filters", "tile": 64}


def write(path: Path, row: int, width: int = 6, tiles: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(row).normal(row % 2, 1, (tiles, width))
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = values, np.arange(2 * tiles).reshape(tiles, 2) * 512


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Twenty feature files of another tool, and their list."""
    for k in range(20):
        write(tmp_path / "f" / f"s{k}.h5", k)
    lines = [f"s{k},{'ab'[k % 2]}" for k in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["slide,label", *lines]))
    return tmp_path


@pytest.fixture
def slides(tmp_path) -> Path:
    """Two slides, and their list."""
    for k in range(2):
        picture = draw_slide(np.random.default_rng(k), 256, True)
        write_pyramid(tmp_path / "slides" / f"s{k}.tiff", picture)
    (tmp_path / "labels.csv").write_text("slide,label\ns0,a\ns1,b\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _folder_of_slides(tmp_path) -> None:
    (tmp_path / "slides").mkdir()


def read(home: Path, **options: object) -> tuple[sources.BagSource, Account]:
    with opened(options.pop("accept", ())) as account:  # type: ignore[arg-type]
        chosen = {"data": str(home / "labels.csv"), "features": str(home / "f"), **options}
        return sources.read_source(WsiOptions(**chosen)), account  # type: ignore[arg-type]


def text_of(account: Account) -> str:
    return "\n".join(account.lines())


class TestStoredFeatures:
    def test_two_widths_are_named_with_their_files_before_anything_is_trained(self, cohort) -> None:
        write(cohort / "f" / "s13.h5", 13, width=9)
        with pytest.raises(InputError, match=r"widths 6 \(.*s0\.h5\) and 9 \(.*s13\.h5\)"):
            read(cohort)

    @pytest.mark.parametrize("kind", ["empty", "text", "nan"])
    def test_a_file_that_cannot_be_used_is_left_out_and_the_others_are_not(
        self, cohort, kind: str
    ) -> None:
        path = cohort / "f" / "s5.h5"
        if kind == "empty":
            write(path, 5, tiles=0)
        elif kind == "text":
            path.write_text("no features")
        else:
            with h5py.File(path, "a") as file:
                file["features"][0, 0] = np.nan
        source, account = read(cohort)
        assert len(source.cohort) == 19
        assert "20 slides listed; 20 feature files of another tool" in text_of(account)
        assert "; 19 slides used" in text_of(account)
        assert "s5" not in source.cohort.names
        assert "1 slides whose features cannot be used (s5: " in text_of(account)
        for row in range(19):
            assert source.bag(row).shape == (5, 6)

    def test_features_of_another_tool_are_never_mixed_with_ours(self, cohort) -> None:
        picture = draw_slide(np.random.default_rng(0), 256, True)
        write_pyramid(cohort / "slides" / "s3.tiff", picture)
        (cohort / "f" / "s3.h5").unlink()
        source, account = read(cohort, slides=str(cohort / "slides"), encoder="random-filters")
        assert source.extraction is None
        assert "s3" not in source.cohort.names
        assert "which are of another tool (s3)" in text_of(account)
        pipelines.wsi.features(slides=cohort / "slides", output=cohort / "f", mpp=0.5, **OURS)
        with pytest.raises(InputError, match=r"of Headwise \(.*s3\.h5\) and of another tool"):
            read(cohort)

    def test_exact_copies_share_a_patient_and_two_names_of_a_file_are_refused(self, cohort) -> None:
        (cohort / "f" / "s9.h5").write_bytes((cohort / "f" / "s3.h5").read_bytes())
        source, account = read(cohort)
        assert source.cohort.patients[9] == source.cohort.patients[3] == "s3"
        assert "exact copies of other slides; copies share a part (s9)" in text_of(account)
        listed = (cohort / "labels.csv").read_text()
        (cohort / "labels.csv").write_text(listed + "\ns4.svs,a")
        with pytest.raises(InputError, match=r"'s4' and 's4\.svs' are one slide"):
            read(cohort)
        (cohort / "labels.csv").write_text(listed + "\ns4.svs,b")
        with pytest.raises(InputError, match="are one slide with the labels 'a' and 'b'"):
            read(cohort)

    def test_nothing_that_fits_shows_what_was_looked_for_and_what_is_there(self, cohort) -> None:
        (cohort / "labels.csv").write_text("slide,label\nA-1.svs,a\nA-2.svs,b\n")
        with pytest.raises(InputError, match=r"looked for 'A-1\.svs', there is 's0\.h5'"):
            read(cohort)

    def test_slides_that_are_nowhere_are_left_out_and_named(self, cohort) -> None:
        (cohort / "f" / "s7.h5").unlink()
        source, account = read(cohort)
        assert "s7" not in source.cohort.names
        assert "1 slides neither in" in text_of(account)
        assert "(s7)" in text_of(account)

    def test_other_parts_than_those_of_the_training_are_named(self, cohort) -> None:
        pipeline = load_task("wsi").load()
        options = WsiOptions(data=str(cohort / "labels.csv"), features=str(cohort / "f"))
        with opened() as account:
            spec = pipeline.open_data(options).spec
            pipeline.open_data(options, spec)
        assert "not those of the training" not in text_of(account)
        (cohort / "f" / "s7.h5").unlink()
        with opened() as account:
            pipeline.open_data(options, spec)
        assert "the parts are not those of the training: train 12, now 11" in text_of(account)

    def test_a_column_of_any_name_can_be_named(self, cohort) -> None:
        text = (cohort / "labels.csv").read_text().replace("slide,label", "scan,outcome")
        (cohort / "labels.csv").write_text(text)
        with pytest.raises(InputError, match="--columns slide=COLUMN"):
            read(cohort)
        source, _ = read(cohort, columns=("slide=scan", "label=outcome"))
        assert len(source.cohort) == 20

    def test_the_items_of_a_part_are_those_of_later_predictions(self, cohort) -> None:
        source, _ = read(cohort)
        (member,) = source.members(3)
        assert Path(member.file).name == "s3.h5"
        splits = (
            load_task("wsi")
            .load()
            .open_data(WsiOptions(data=str(cohort / "labels.csv"), features=str(cohort / "f")))
        )
        files = [member.file for part in splits.members.values() for member in part]
        assert sorted(files) == sorted(str(path) for path in (cohort / "f").iterdir())


class TestExtraction:
    def test_features_of_another_slide_are_refused(self, slides) -> None:
        folder = slides / "slides"
        read(slides, slides=str(folder), **OURS)
        first, second = folder / "s0.tiff", folder / "s1.tiff"
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        with pytest.raises(InputError, match=r"s0\.h5: holds the features of another slide"):
            read(slides, slides=str(folder), **OURS)
        status = pipelines.wsi.features(slides=folder, output=slides / "f", **OURS).table
        assert dict(zip(status["slide"], status["status"])) == {"s0": "error", "s1": "ok"}
        account = json.loads((slides / "f" / "account.json").read_text())
        lines = {(line["topic"], line["count"]): line for line in account}
        assert lines["read", 2]["what"] == "slides"
        assert lines["left out", 1]["names"] == ["s0"]
        first.write_bytes(content)  # the same slide, at another time
        assert len(read(slides, slides=str(folder), **OURS)[0].cohort) == 2

    def test_older_files_are_compared_by_the_size_of_the_slide(self, slides) -> None:
        folder = slides / "slides"
        read(slides, slides=str(folder), **OURS)
        for name in ("s0.h5", "s1.h5"):
            with h5py.File(slides / "f" / name, "a") as file:
                del file["coords"].attrs["slide_digest"]
                del file["coords"].attrs["least_tissue"]
        assert len(read(slides, slides=str(folder), **OURS)[0].cohort) == 2
        write_pyramid(folder / "s0.tiff", draw_slide(np.random.default_rng(0), 384, True))
        with pytest.raises(InputError, match="of another slide"):
            read(slides, slides=str(folder), **OURS)

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"tile": 96}, "patch_size"),
            ({"overlap": 0.5}, "overlap"),
            ({"least_tissue": 0.5}, "least_tissue"),
            ({"mpp": 0.25}, "mpp"),
        ],
    )
    def test_features_of_other_settings_are_not_trained_on(self, slides, options, name) -> None:
        folder = str(slides / "slides")
        read(slides, slides=folder, **OURS)
        with pytest.raises(InputError, match=f"made with other settings .*{name}"):
            read(slides, slides=folder, **{**OURS, **options})

    def test_settings_that_nobody_names_are_those_of_the_stored_features(self, slides) -> None:
        read(slides, slides=str(slides / "slides"), overlap=0.25, **OURS)
        source, account = read(slides)
        assert source.extraction is not None
        assert source.extraction["encoder"] == "random-filters"
        assert (source.extraction["tile"], source.extraction["overlap"]) == (64, 0.25)
        assert "slides are encoded as the stored features were" in text_of(account)

    def test_mpp_of_the_user_counts_for_slides_and_files(self, slides) -> None:
        write_pyramid(slides / "slides" / "s0.tiff", np.zeros((256, 256, 3), np.uint8), mpp=1000)
        picture = draw_slide(np.random.default_rng(5), 256, True)
        write_pyramid(slides / "slides" / "s0.tiff", picture, mpp=1000)
        source, account = read(slides, slides=str(slides / "slides"), mpp=0.5, **OURS)
        assert "s0.tiff: 1000, taken 0.5" in text_of(account)
        assert len(source.cohort) == 2
        stored = read_features(slides / "f" / "s0.h5")
        assert stored.attributes["level0_mpp"] == 0.5

    def test_slides_that_are_not_listed_are_named(self, slides) -> None:
        write_pyramid(
            slides / "slides" / "new.tiff", draw_slide(np.random.default_rng(9), 256, True)
        )
        (slides / "slides" / "notes.txt").write_text("x")
        _, account = read(slides, slides=str(slides / "slides"), **OURS)
        assert "1 slides that are not in the list" in text_of(account)
        assert "files of other kinds (notes.txt)" in text_of(account)


class TestEncoder:
    def test_one_that_cannot_be_built_is_one_error_before_the_slides(
        self, slides, monkeypatch
    ) -> None:
        asked = []

        def failing(name: str, weights: str, size: object) -> None:
            asked.append(name)
            raise ValueError("no network")

        monkeypatch.setattr(extraction, "build_encoder", failing)
        with pytest.raises(InputError, match=r"--encoder resnet50\.a1_in1k: no network"):
            read(slides, slides=str(slides / "slides"), features=None)
        with pytest.raises(InputError, match="no network"):
            pipelines.wsi.features(slides=slides / "slides", output=slides / "o")
        assert asked == ["resnet50.a1_in1k"] * 2

    def test_weights_that_say_their_model_are_the_encoder(
        self, slides, monkeypatch, tmp_path
    ) -> None:
        timm = pytest.importorskip("timm", reason="timm is optional (extra wsi)")
        import json
        from dataclasses import asdict

        from safetensors.torch import save_file

        from headwise.models.weights.adopted import METADATA, BackboneFacts
        from headwise.pipelines.wsi.options import FeaturesOptions

        name, file = "test_resnet.r160_in1k", tmp_path / "w.safetensors"
        facts = BackboneFacts("tiny", name, 32, (0.1,) * 3, (0.2,) * 3, 64, "")
        state = timm.create_model(name, num_classes=0).state_dict()
        save_file(state, file, {METADATA: json.dumps(asdict(facts))})
        options = FeaturesOptions(slides="s", output="o", weights=str(file))
        settings = extraction.extraction_of(options)
        assert (settings["encoder"], settings["weights"]) == (name, str(file))
        extraction._encoder.cache_clear()
        encoder = extraction.Extractor(settings, extraction.torch.device("cpu")).encoder
        assert encoder.mean.flatten().tolist() == pytest.approx([0.1] * 3)
        hub = FeaturesOptions(slides="s", output="o", weights="hf-hub:a/b")
        settings = extraction.extraction_of(hub)
        assert (settings["encoder"], settings["weights"]) == ("hf-hub:a/b", "pretrained")
        default = extraction.extraction_of(FeaturesOptions(slides="s", output="o"))
        assert (default["encoder"], default["weights"]) == ("resnet50.a1_in1k", "pretrained")

    def test_without_a_name_it_is_the_best_at_hand_else_the_default(self, monkeypatch) -> None:
        from headwise.pipelines.engine.weights import Weights
        from headwise.pipelines.wsi.options import FeaturesOptions

        def encoder_of(generated: bool = False, **options: str) -> tuple[str, str]:
            settings = extraction.extraction_of(
                FeaturesOptions(slides="s", output="o", **options), generated
            )
            return settings["encoder"], settings["weights"]

        def at_hand(*weights: str) -> None:
            monkeypatch.setattr(extraction, "resolve_weights", lambda *_, **__: Weights(*weights))

        at_hand("none", "auto", "random")
        assert encoder_of() == ("resnet50.a1_in1k", "pretrained")
        at_hand("efficientnet-lite0", "tf_efficientnet_lite0", "/cache/file.safetensors")
        assert encoder_of() == ("tf_efficientnet_lite0", "efficientnet-lite0")
        assert encoder_of(generated=True) == ("random-filters", "random")
        monkeypatch.setattr(extraction, "resolve_weights", lambda *_, **__: pytest.fail("asked"))
        assert encoder_of(encoder="resnet18.a1_in1k") == ("resnet18.a1_in1k", "pretrained")
        assert encoder_of(weights="pretrained") == ("resnet50.a1_in1k", "pretrained")
        assert encoder_of(encoder="random-filters") == ("random-filters", "random")

    def test_weights_that_stored_features_do_not_need_are_not_looked_for(
        self, slides, tmp_path, monkeypatch
    ) -> None:
        where = {"slides": str(slides / "slides"), "features": str(tmp_path / "f")}
        read(slides, **where, **OURS)
        monkeypatch.setattr(extraction, "resolve_weights", lambda *_, **__: pytest.fail("asked"))
        assert len(read(slides, **where)[0].cohort) == 2

    def test_without_network_it_fails_at_once_and_names_what_works(self, monkeypatch) -> None:
        pytest.importorskip("timm", reason="timm is optional (extra wsi) and not installed")
        from huggingface_hub import constants

        from headwise.models.layers.encoders import build_encoder

        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")
        with pytest.raises(ValueError, match="cannot be reached; --weights FILE"):
            build_encoder("resnet18.a1_in1k")

    def test_stored_features_need_none(self, slides, monkeypatch) -> None:
        folder = str(slides / "slides")
        read(slides, slides=folder, **OURS)
        monkeypatch.setattr(extraction, "build_encoder", lambda *_: pytest.fail("built"))
        extraction._encoder.cache_clear()
        assert len(read(slides, slides=folder, **OURS)[0].cohort) == 2


class TestLinks:
    def test_a_folder_of_links_is_named_and_followed_if_the_user_says_so(self, slides) -> None:
        (slides / "linked").mkdir()
        (slides / "linked" / "batch").symlink_to(slides / "slides")
        options = {"slides": slides / "linked", "output": slides / "o", **OURS}
        with pytest.raises(InputError, match="batch is a link, which --accept links follows"):
            pipelines.wsi.features(**options)
        assert pipelines.wsi.features(accept=("links",), **options).table.height == 2
        (slides / "broken").mkdir()
        (slides / "broken" / "batch").symlink_to(slides / "gone")
        with pytest.raises(InputError, match="is a link to nothing"):
            pipelines.wsi.features(**{**options, "slides": slides / "broken"})


class TestOptionsThatNothingReads:
    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"model": "mean", "branches": 3}, "--branches"),
            ({"model": "abmil", "masked": 3}, "--masked"),
            ({"model": "max", "diversity": 0.5}, "--diversity"),
            ({"masked": 0, "mask_share": 0.5}, "--mask-share"),
            ({"layers": 2}, "--layers"),
            ({"ffn": "moe"}, "--ffn"),
        ],
    )
    def test_they_are_refused(self, options, name) -> None:
        with pytest.raises(InputError, match=f"{name}: is read by .*; leave it out"):
            check(WsiOptions(**options))

    def test_those_of_a_preset_are_not(self) -> None:
        task = load_task("wsi")
        assert parse(task, "train", ["--preset", "bags", "--model", "mean"]).masked == 0
        with pytest.raises(InputError, match="--masked"):
            parse(task, "train", ["--preset", "bags", "--model", "mean", "--masked", "3"])

    @pytest.mark.parametrize(
        "options", [{"precision": "bf16-mixed"}, {"devices": 2}, {"model": "abmil"}, {"keep": 5}]
    )
    def test_a_cross_validation_refuses_what_it_does_not_do(self, options) -> None:
        with pytest.raises(InputError, match="is read by train"):
            check(CrossvalOptions(data="x.csv", output="o", **options))
        check(CrossvalOptions(data="x", output="o", patience=3, class_weights=True))
        with pytest.raises(InputError, match="--patience"):
            check(CrossvalOptions(data="x", output="o", patience=3, last_epoch=True))

    def test_a_table_of_bags_needs_no_slides(self, tmp_path) -> None:
        (tmp_path / "b.csv").write_text("bag,label,x\na,1,0.5\nb,0,3\n")
        with pytest.raises(InputError, match="--encoder: is read by slides; --data is a table"):
            sources.read_source(WsiOptions(data=str(tmp_path / "b.csv"), encoder="uni"))
