"""The verbs of medical, called as on the command line."""

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

pytest.importorskip("timm", reason="the extra `vision` is not installed")

from headwise.data.xrays.generate import write_sample_xrays

SMALL = ("--size", "32", "32", "--body-size", "16", "16", "--body-width", "2", "--head-width", "4")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_sample_xrays(tmp_path_factory.mktemp("xrays"), pictures=60)


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    from headwise import pipelines

    path = tmp_path_factory.mktemp("run") / "run"
    pipelines.medical.train(
        run=path,
        data=str(home),
        max_steps=4,
        size=(32, 32),
        body_size=(16, 16),
        body_width=2,
        head_width=4,
        lungs=str(home / "lungs"),
        boxes=str(home / "boxes.csv"),
        choose="model",
    )
    return path


@pytest.mark.parametrize("task", ["medical", "saliency"])
def test_weights_that_say_their_model_need_no_backbone(headwise, home, tmp_path, task):
    """Neither to train nor, once the file is gone, to use the run. (The test of saliency is here,
    too: it is the same.)
    """
    import timm
    from safetensors.torch import load_file, save_file

    from headwise.data.scenes.generate import write_sample_scenes
    from headwise.models.weights.adopted import METADATA, BackboneFacts

    name, file = "test_efficientnet", tmp_path / "w.safetensors"
    state = timm.create_model(name, num_classes=0).state_dict()
    facts = BackboneFacts("tiny", name, 32, (0.5,) * 3, (0.5,) * 3, 64, "")
    save_file(state, file, {METADATA: json.dumps(asdict(facts))})
    data = home if task == "medical" else write_sample_scenes(tmp_path / "scenes")
    words = SMALL if task == "medical" else ("--size", "32", "32", "--transformer", "none")
    code, lines = headwise(
        task, "train", "--data", data, "--run", tmp_path / "r", *words, "--weights", file,
        "--max-steps", "1", "--batch-size", "4", "--lr", "1e-9",
    )  # fmt: skip
    assert code == 0, lines
    assert any("weights of" in line and name in line for line in lines)
    assert json.loads((tmp_path / "r" / "spec.json").read_text())["backbone"] == name
    trained = load_file(tmp_path / "r" / "model.safetensors")
    ending = "blocks.3.0.conv_pw.weight"
    stored = [value for key, value in trained.items() if key.endswith(ending)]
    assert len(stored) == (1 if task == "medical" else 2)
    assert all(np.allclose(value, state[ending], atol=1e-6) for value in stored)
    file.unlink()
    code, lines = headwise(task, "evaluate", "--run", tmp_path / "r")
    assert code == 0, lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "8", "8"), "32 to 2048"),
        (("--validation-share", "0"), "chosen on the validation part"),
        (("--attention", "none", "--form", "pure"), "--form: is read by the heads"),
        (("--attention", "softmx"), "--attention softmx: unknown; did you mean softmax?"),
        (("--attention", "agent"), "--attention agent: the tokens are the cells of a map"),
        (("--attention-options", "inner=3"), "not by --attention medusa; leave them out"),
        (("--sensitivity", "2"), "--sensitivity"),
        (("--attention", "cbam", "--body", "b.safetensors"), "has no body"),
        (("--positive", "cloudy"), "did you mean"),
        (("--classes", "clear"), "at least two"),
        (("--box-frame", "9", "9"), "needs --boxes"),
        (("--lungs", "no-such-folder"), "is no folder of lung masks"),
        (("--backbone", "resnet5O"), "unknown to timm"),
        (("--body", "nothing.pt"), "there is no such file"),
    ],
)
def test_mistakes_get_one_line(headwise, home, tmp_path, words, message):
    code, lines = headwise(
        "medical", "train", "--data", home, "--run", tmp_path / "r", *SMALL, *words
    )
    assert code == 2
    assert message in lines[-1]
    assert not (tmp_path / "r").exists()


def test_the_report_says_what_can_be_read_without_the_lung(run):
    metrics = json.loads((run / "metrics.json").read_text())
    audit = metrics["audit"]
    assert {"view", "source", "border pixels", "picture without lungs"} <= set(audit["probes"])
    assert {"sensitivity", "ppv", "auprc", "auc", "balanced_accuracy", "ece"} <= set(
        metrics["intervals"]
    )
    assert {"pointing", "pointing_chance", "in_lungs", "lungs_even"} <= set(
        metrics["looked"]["attention"]
    )
    page = (run / "report.html").read_text()
    assert "Could it be read without the lung?" in page
    assert "not for clinical use" in page


def test_other_data_is_scored_without_its_lungs(headwise, home, run, tmp_path):
    for k, label in enumerate(("clear", "cloud") * 6):
        (tmp_path / "other" / label).mkdir(parents=True, exist_ok=True)
        picture = (home / "pictures" / f"generated-{k + 1:03d}.png").read_bytes()
        (tmp_path / "other" / label / f"{k}.png").write_bytes(picture)
    code, lines = headwise("medical", "evaluate", "--run", run, "--data", tmp_path / "other")
    assert code == 0, lines
    assert any(
        "left out" in line and "holds no mask of the name of a picture" in line for line in lines
    )


def test_a_body_is_trained_and_used(headwise, home, tmp_path):
    words = (
        "--data",
        home,
        "--lungs",
        home / "lungs",
        "--body-size",
        "32",
        "32",
        "--body-width",
        "4",
    )
    code, lines = headwise(
        "medical", "body", *words, "--output", tmp_path / "b", "--folds", 2, "--epochs", 20
    )
    assert code == 0, lines
    facts = json.loads((tmp_path / "b" / "body.json").read_text())
    assert facts["masks"] == 60
    assert facts["interval"][0] <= facts["dice"] <= facts["interval"][1]
    assert facts["dice"] > 0.5
    used = (
        *SMALL[:3],
        "--body-size",
        "32",
        "32",
        "--head-width",
        "4",
        "--body",
        tmp_path / "b" / "body.safetensors",
    )
    code, lines = headwise(
        "medical",
        "train",
        "--data",
        home,
        "--run",
        tmp_path / "r",
        *used,
        "--body-width",
        4,
        "--max-steps",
        1,
    )
    assert code == 0, lines
    code, lines = headwise(
        "medical", "train", "--data", home, "--run", tmp_path / "s", *used, "--body-width", 6
    )
    assert code == 2
    assert "weights of another body" in lines[-1]
    code, lines = headwise(
        "medical", "body", "--data", home, "--lungs", tmp_path, "--output", tmp_path / "c"
    )
    assert code == 2


def test_compare_is_resumed_and_tabulates(headwise, home, tmp_path):
    words = (
        "medical",
        "compare",
        "--data",
        home,
        "--output",
        tmp_path / "c",
        *SMALL,
        "--max-steps",
        1,
        "--models",
    )
    code, lines = headwise(*words, "medusa", "none", "--seeds", 1)
    assert code == 0, lines
    code, lines = headwise(*words, "medusa", "none", "cbam", "--seeds", 2)
    assert code == 0, lines
    assert any("2 of 6 trainings were done before" in line for line in lines)
    table = pl.read_csv(tmp_path / "c" / "comparison.csv")
    assert table["model"].to_list() == ["medusa", "none", "cbam", "most frequent class"]
    assert (table["auc"][:3] > 0).all()
    assert "difference to none in auc" in (tmp_path / "c" / "comparison.md").read_text()
    code, lines = headwise(*words, "medusa", "eyes")
    assert code == 2
    assert "--models eyes: unknown" in lines[-1]


def test_dicom_is_predicted_and_says_nothing_of_the_person(headwise, run, tmp_path):
    pytest.importorskip("pydicom", reason="pydicom is optional (extra medical) and not installed")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    (tmp_path / "in").mkdir()
    for k, modality in enumerate(("DX", "CT", "CR")):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = (
            ExplicitVRLittleEndian,
            generate_uid(),
        )
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        dicom = Dataset()
        dicom.file_meta, dicom.SOPClassUID = meta, meta.MediaStorageSOPClassUID
        dicom.SOPInstanceUID, dicom.Modality = "1.2", modality
        dicom.PatientID, dicom.PatientName = "SECRET-7", "Doe^Jane"
        dicom.ViewPosition, dicom.Rows, dicom.Columns, dicom.BitsAllocated, dicom.BitsStored = (
            "AP",
            9,
            8,
            16,
            12,
        )
        dicom.HighBit, dicom.PixelRepresentation, dicom.SamplesPerPixel = 11, 0, 1
        dicom.PhotometricInterpretation = "MONOCHROME1"
        dicom.PixelData = np.arange(72, dtype=np.uint16).tobytes()
        dicom.save_as(tmp_path / "in" / f"{k}.dcm", enforce_file_format=True)
    words = ("medical", "predict", "--run", run, "--input", tmp_path / "in")
    code, lines = headwise(*words, "--output", tmp_path / "a.parquet")
    assert code == 3
    table = pl.read_parquet(tmp_path / "a.parquet").sort("item")
    assert table["status"].to_list() == ["ok", "error", "ok"]
    assert table["view"].to_list() == ["AP", None, "AP"]
    assert "not a radiograph" in table["error"][1]
    assert (tmp_path / "a.parquet.pictures" / "0.png").is_file()
    everything = b"".join(
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".dcm"
    )
    assert b"SECRET" not in everything
    assert b"Doe" not in everything
    assert not any("SECRET" in line or "Doe" in line for line in lines)
    code, lines = headwise(
        *words, "--output", tmp_path / "b.parquet", "--keep-identifiers", "--no-explain"
    )
    assert pl.read_parquet(tmp_path / "b.parquet").sort("item")["patient"].to_list() == [
        "SECRET-7",
        None,
        "SECRET-7",
    ]


def test_doubts_that_a_training_accepted_do_not_come_back(headwise, home, tmp_path):
    """A copy in two parts: the run is scored and exported without asking again."""
    lines = (home / "labels.csv").read_text().splitlines()
    parts = ("train", "train", "val", "test")
    table = [f"{line},{parts[k // 4 % 4]}" for k, line in enumerate(lines[1:])]
    copy = home / "pictures" / "copy.png"
    copy.write_bytes((home / "pictures" / "generated-001.png").read_bytes())
    *_, view, source = lines[1].split(",")
    table.append(f"pictures/copy.png,clear,PX,{view},{source},test")
    (home / "copies.csv").write_text("\n".join([f"{lines[0]},part", *table]) + "\n")
    words = ("medical", "train", "--data", home / "copies.csv", "--run", tmp_path / "r", *SMALL)
    try:
        code, lines = headwise(*words, "--max-steps", 1)
        assert code == 2
        assert "exact copies in train and in test" in lines[-1]
        code, lines = headwise(*words, "--max-steps", 1, "--accept", "copies")
        assert code == 0, lines
        assert any(line.startswith("accepted: ") for line in lines)
        for verb in (("evaluate",), ("export", "--output", tmp_path / "m.pt2")):
            code, lines = headwise("medical", verb[0], "--run", tmp_path / "r", *verb[1:])
            assert code == 0, lines
    finally:
        copy.unlink()
