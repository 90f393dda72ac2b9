"""The commands that `golden.py` records, and what they take beside the generated samples."""

import json
import wave
from pathlib import Path

import numpy as np

REID = "--size 32 16 --patch 8 --width 16 --layers 2 --heads 2 --batch-size 16"
MEDICAL = "--size 32 32 --body-size 16 16 --body-width 2 --head-width 4"
XRAYS = "train/sample/generated-chest-xrays"
PERSONS = "train/sample/generated-persons"
SCENES = "train/sample/generated-rgbd-scenes"
SPOKEN = "train/sample/generated-tone-digits"
SLIDES = "train/sample/generated-slides"
CLICKS = SERIES = "train/sample/generated.csv"
MANIFEST = "inputs/manifest.jsonl"
SPEECH = "--width 16 --heads 2 --encoder-layers 1 --decoder-layers 2"
FEW_MASKS = "--masks 6 --input-masks 4 --segments 10 --margin 0.1"

# Commands by task and by the name of their record, in the order in which one needs another. Each
# runs in the folder of its task and writes below the name of its record or into the run `train`.
STEPS: dict[str, dict[str, str]] = {
    "core": {
        "attention": "list attention",
        "moe": "list moe",
        "kernels": "list kernels",
        "data": "data list",
    },
    "forecast": {
        "train": "train --run train --epochs 3",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {SERIES} --output predict/p.parquet",
        "backtest": "backtest --run train --origins 4",
        "export": "export --run train --output export/model.pt2",
        "mixture": "train --run mixture --epochs 1 --attention softmax --ffn moe --horizon 24",
    },
    "medical": {
        "train": f"train --run train --epochs 3 {MEDICAL}",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {XRAYS} --output predict/p.parquet",
        "export": "export --run train --output export/model.pt2",
        "cbam": f"train --run cbam --epochs 1 {MEDICAL} --attention cbam",
        "looked": f"train --run looked --epochs 1 {MEDICAL} --data {XRAYS} --lungs {XRAYS}/lungs"
        f" --boxes {XRAYS}/boxes.csv",
        "body": f"body --data {XRAYS} --lungs {XRAYS}/lungs --output body"
        " --body-size 16 16 --body-width 4 --folds 2 --epochs 12",
        "compare": f"compare --output compare {MEDICAL} --models medusa none"
        " --seeds 1 --max-steps 2",
    },
    "ranking": {
        "train": "train --run train --epochs 3",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {CLICKS} --output predict/p.parquet",
        "export": "export --run train --output export/model.pt2",
        "mmoe": "train --run mmoe --epochs 1 --model mmoe",
        "from": f"train --run from --epochs 1 --from train --data {CLICKS}",
        "top": "top --run train --output top/lists.parquet --k 3",
        "schema": f"schema --data {CLICKS} --output schema/schema.yaml",
        "compare": "compare --output compare --models infnet dcnv2 --seeds 1 --max-steps 2",
    },
    "reid": {
        "train": f"train --run train --epochs 3 {REID}",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {PERSONS}/query --output predict/p.parquet --maps",
        "export": "export --run train --output export/model.pt2",
        "star": f"train --run star --epochs 1 {REID} --attention star --glca 0 --no-pwca",
        "embed": f"embed --run train --input {PERSONS}/bounding_box_test --output embed/g.parquet",
        "search": f"search --run train --query {PERSONS}/query --gallery embed/g.parquet --k 4"
        " --output search/s.parquet --rerank",
        "crop": f"crop --input {PERSONS}/query --boxes inputs/boxes.csv --output crop --least 4",
        "compare": f"compare --output compare {REID} --models baseline dcal"
        " --seeds 1 --max-steps 2",
    },
    "saliency": {
        "train": "train --run train --epochs 3 --size 64 64",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {SCENES}/test --output predict/p.parquet",
        "export": "export --run train --output export/model.pt2",
        "agent": "train --run agent --epochs 1 --size 32 32 --attention agent-grid",
        "crossval": f"crossval --output crossval --data {SCENES} --groups inputs/groups.csv"
        " --size 32 32 --max-steps 2",
    },
    "speech": {
        "train": "train --run train --epochs 3 --lr 0.001 --batch-size 4 --encoder-layers 2",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {SPOKEN} --output predict/p.parquet",
        "known": f"predict --run train --input {MANIFEST} --output known/p.parquet"
        " --known-text --maps --formats json srt vtt tsv ctm TextGrid txt",
        "export": "export --run train --output export/model.pt2",
        "conformer": f"train --run conformer --epochs 1 {SPEECH} --encoder conformer"
        " --decoder-attention differential",
        "adopt": "adopt --run adopt --weights inputs/whisper.pt"
        " --tokenizer train/assets/tokenizer.json",
        "adopted": f"predict --run adopt --input {MANIFEST} --output adopted/p.parquet",
        "beams": f"predict --run train --input {MANIFEST} --output beams/p.parquet --beams 2",
        "digits": "digits --recordings inputs/digits --output digits --strings 4 --test low",
        "explain": f"explain --run train --input {MANIFEST} --output explain {FEW_MASKS}",
        "compare": f"compare --run train --data {MANIFEST} --output compare {FEW_MASKS}",
    },
    "wsi": {
        "train": "train --run train --epochs 3",
        "evaluate": "evaluate --run train",
        "predict": f"predict --run train --input {SLIDES} --output predict/p.parquet",
        "export": "export --run train --output export/model.pt2",
        "features": f"features --slides {SLIDES} --output features --encoder random-filters",
        "attention": f"train --run attention --epochs 1 --data {SLIDES} --features features"
        " --encoder random-filters --model abmil --attention star",
        "crossval": f"crossval --output crossval --data {SLIDES} --features features"
        " --encoder random-filters --folds 2 --repeats 1 --epochs 1 --models acmil mean",
    },
}  # fmt: skip
REOPENED = ("evaluate", "predict")
# The first step of a task that needs what `write_inputs` writes.
INPUTS = {"reid": "crop", "saliency": "crossval", "speech": "known"}


def write_inputs(task: str, folder: Path) -> None:
    """What steps take that is not in the sample of the run `train`."""
    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    if task == "reid":
        rows = [f"{frame},{5 * frame},10,30,60,0.9,{frame}" for frame in range(1, 7)]
        (inputs / "boxes.csv").write_text(
            "\n".join(["frame,x,y,width,height,score,identity", *rows]) + "\n"
        )
    if task == "saliency":
        names = sorted(path.stem for path in (folder / SCENES).glob("*/RGB/*"))
        rows = [f"{name},group-{k % 3}" for k, name in enumerate(names)]
        (inputs / "groups.csv").write_text("\n".join(["image,group", *rows]) + "\n")
    if task == "speech":
        lines = [
            json.loads(line)
            for line in (folder / SPOKEN / "manifest.jsonl").read_text().splitlines()[:3]
        ]
        spoken = [line | {"audio": f"../{SPOKEN}/{line['audio']}"} for line in lines]
        (inputs / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in spoken))
        write_digits(inputs / "digits")
        write_whisper(inputs / "whisper.pt")


def write_digits(folder: Path) -> None:
    """Tones in place of recorded digits, of two speakers, named as the FSDD names its files."""
    folder.mkdir(exist_ok=True)
    for speaker, pitch in (("low", 200), ("high", 400)):
        for digit in range(10):
            tone = np.sin(np.arange(1600 + 100 * digit) * 2 * np.pi * (pitch + 30 * digit) / 8000)
            with wave.open(str(folder / f"{digit}_{speaker}_0.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes((8000 * tone).astype("<i2").tobytes())


def write_whisper(path: Path, width: int = 16, vocabulary: int = 19) -> None:
    """Random weights in the form of OpenAI's Whisper, one layer on either side."""
    import torch

    generator = np.random.default_rng(0)
    state: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.from_numpy(generator.normal(scale=0.2, size=shape).astype(np.float32))

    def add_linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        add(f"{name}.weight", outputs, inputs)
        if bias:
            add(f"{name}.bias", outputs)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", width)
        add(f"{name}.bias", width)

    for side, attentions in (("encoder", ("attn",)), ("decoder", ("attn", "cross_attn"))):
        for attention in attentions:
            add_norm(f"{side}.blocks.0.{attention}_ln")
            for part in ("query", "key", "value", "out"):
                add_linear(f"{side}.blocks.0.{attention}.{part}", width, width, bias=part != "key")
        add_norm(f"{side}.blocks.0.mlp_ln")
        add_linear(f"{side}.blocks.0.mlp.0", width, 4 * width)
        add_linear(f"{side}.blocks.0.mlp.2", 4 * width, width)
        add(f"{side}.positional_embedding", 150 if side == "encoder" else 40, width)
    for name, channels in (("encoder.conv1", 80), ("encoder.conv2", width)):
        add(f"{name}.weight", width, channels, 3)
        add(f"{name}.bias", width)
    add_norm("encoder.ln_post")
    add_norm("decoder.ln")
    add("decoder.token_embedding.weight", vocabulary, width)
    state["decoder.token_embedding.weight"][-2:] = 0  # neither the end nor the start is likely
    torch.save({"dims": {"n_text_head": 2}, "model_state_dict": state}, path)
