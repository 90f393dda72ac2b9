"""FuxiCTR scoring a large parquet table on the CPU: the rival's half of "score 5 million rows
parquet -> parquet".

    python -m venv fuxictr && fuxictr/bin/pip install torch==2.14.1 fuxictr==2.3.10 aiohttp
    fuxictr/bin/python fuxictr_scoring.py generate train.parquet --rows 200000 --seed 1
    fuxictr/bin/python fuxictr_scoring.py generate rows.parquet --rows 5000000 --seed 2
    fuxictr/bin/python fuxictr_scoring.py prepare train.parquet home
    fuxictr/bin/python fuxictr_scoring.py score rows.parquet home predictions.parquet --way direct

`prepare` fits FuxiCTR's FeatureProcessor, builds a shared-bottom model of two tasks out of its
classes, trains it a few steps and saves both. `score` transforms raw rows with the fitted
processor, predicts both tasks and writes them in the order of the rows; it prints the seconds of
each stage and of the whole process, rows per second and the peak memory. Three ways, all through
FuxiCTR's public calls and none with code of ours in a hot loop:

    single   its build_dataset.transform into one parquet file, then ParquetDataLoader (both on
             Ray Data)
    blocks   the same into a folder of parts of --block rows
    direct   FeatureProcessor.transform batch by batch, straight into model.predict: no Ray, no file
             between; --workers processes read and transform (0: the predicting process does it)

`single` and `blocks` are what FuxiCTR offers of itself; `direct` is the fastest that its calls
allow. Peak memory is of the process (peak_mib), of its largest waited-for child (child_mib), and,
sampled, of all its processes together with what they share counted once (tree_mib). cpu_s is the
processor time of the process and its waited-for children, without Ray's processes: seconds far
above cpu_s over the cores tell of a busy machine. Nothing here imports Headwise.

Ray's reader wants aiohttp. An id that training did not have becomes `__OOV__`, a row of the table
of embeddings that no training row reaches. model.predict returns predictions in the order of its
loader's batches, without ids; that of ParquetDataLoader is not the order of the file unless Ray is
told so (transformed_loader).
"""

import argparse
import json
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

STARTED = time.perf_counter()
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
DATASET = "rival"
LABELS = ["click", "like"]
CARDINALITIES = [2, 3, 5, 8, 12, 20, 50, 100, 300, 800, 2000, 5000]
IDS = {
    "user_id": 100_000,
    "item_id": 50_000,
    **{f"c{i}": size for i, size in enumerate(CARDINALITIES)},
}
NUMERIC = [f"n{i}" for i in range(6)]


class Clock:
    """Seconds of stages that follow one another; naming a stage ends the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stage, self.since = "start", STARTED

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.since
        self.stage, self.since = stage, now


class TreeMemory(threading.Thread):
    """Peak of the proportional memory (PSS) of this process and all its descendants, sampled."""

    def __init__(self, interval: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.interval, self.peak_kib = interval, 0

    def run(self) -> None:
        while True:
            self.peak_kib = max(self.peak_kib, sum(map(proportional_kib, descendants(os.getpid()))))
            time.sleep(self.interval)


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    processes = [root]
    for process in processes:
        processes += children.get(process, [])
    return processes


def proportional_kib(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def generate(path: str, rows: int, seed: int, chunk: int = 100_000) -> None:
    """A table of raw rows; skewed ids, labels that depend on some of them. Row groups of `chunk`
    rows.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    effects = {
        name: np.random.default_rng(0).normal(0, 0.5, size) for name, size in IDS.items()
    }  # same for any seed
    random, writer = np.random.default_rng(seed), None
    for start in range(0, rows, chunk):
        count = min(chunk, rows - start)
        table = {
            name: (random.random(count) ** 1.5 * size).astype(np.int64)
            for name, size in IDS.items()
        }
        table |= {name: random.normal(size=count) for name in NUMERIC}
        table["time"] = 1_700_000_000 + np.arange(start, start + count, dtype=np.int64)
        logit = (
            sum(effects[name][table[name]] for name in ("user_id", "item_id", "c5", "c9"))
            + 0.5 * table["n0"]
        )
        for label, bias in zip(LABELS, (-1.5, -3.0)):
            table[label] = (random.random(count) < 1 / (1 + np.exp(-logit - bias))).astype(np.int64)
        arrow = pa.table(table)
        writer = writer or pq.ParquetWriter(path, arrow.schema)
        writer.write_table(arrow)
    if writer:
        writer.close()


def new_processor(home: str):
    from fuxictr.preprocess import FeatureProcessor

    columns = [
        {"name": list(IDS), "active": True, "dtype": "int", "type": "categorical"},
        {"name": NUMERIC, "active": True, "dtype": "float", "type": "numeric"},
    ]
    labels = [{"name": name, "dtype": "float"} for name in LABELS]
    return FeatureProcessor(columns, labels, dataset_id=DATASET, data_root=home)


def build_model(home: str, sizes: dict):
    """A shared bottom and a tower a task, of FuxiCTR's embedding, MLP and multi-task classes."""
    import torch
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import MultiTaskModel

    class SharedTrunk(MultiTaskModel):
        def __init__(
            self, feature_map, embedding: int, bottom: list[int], tower: list[int], **options
        ) -> None:
            super().__init__(feature_map, "SharedTrunk", num_tasks=len(LABELS), **options)
            self.embedding = FeatureEmbedding(feature_map, embedding)
            self.trunk = MLP_Block(embedding * feature_map.num_fields, bottom)
            self.heads = torch.nn.ModuleList(
                MLP_Block(bottom[-1], tower, output_dim=1) for _ in LABELS
            )
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()
            self.model_to_device()

        def forward(self, batch):
            shared = self.trunk(self.embedding(self.get_inputs(batch), flatten_emb=True))
            logits = [head(shared) for head in self.heads]
            outputs = zip(LABELS, self.output_activation, logits)
            return {f"{label}_pred": activation(logit) for label, activation, logit in outputs}

    feature_map = FeatureMap(DATASET, str(Path(home) / DATASET))
    feature_map.load(f"{home}/{DATASET}/feature_map.json", {"embedding_dim": sizes["embedding"]})
    common = {
        "task": ["binary_classification"] * len(LABELS),
        "gpu": -1,
        "verbose": 0,
        "metrics": ["AUC"],
    }
    return SharedTrunk(feature_map, **sizes, **common, model_root=home)


def raw_batches(
    path: str, processor, batch: int, clock: Clock, labels: bool = False
) -> Iterator[dict]:
    """Batches of transformed tensors straight from a parquet file, this worker's share of them, in
    order.
    """
    import numpy as np
    import polars as pl
    import pyarrow.parquet as pq
    import torch

    worker = torch.utils.data.get_worker_info()
    share, of = (worker.id, worker.num_workers) if worker else (0, 1)
    columns = list(IDS) + NUMERIC + LABELS  # FeatureProcessor.preprocess asks for the labels, too
    clock("read")
    for index, rows in enumerate(pq.ParquetFile(path).iter_batches(batch, columns=columns)):
        if index % of != share:
            continue
        frame = processor.preprocess(pl.from_arrow(rows).lazy()).collect()
        clock("transform")
        # Lists, not arrays: the tokenizer looks its ids up one by one, which is twice as fast with
        # Python's integers.
        raw = {
            name: frame[name].to_list() if name in IDS else frame[name].to_numpy()
            for name in [*IDS, *NUMERIC]
        }
        ready = {
            name: torch.from_numpy(np.array(values))
            for name, values in processor.transform(raw).items()
        }
        if labels:
            ready |= {name: torch.tensor(frame[name].to_numpy()) for name in LABELS}
        clock("predict")
        yield ready
        clock("read")
    clock("predict")


def prepare(train: str, home: str, sizes: dict, steps: int, batch: int) -> None:
    from fuxictr.pytorch.torch_utils import seed_everything

    processor = new_processor(home)
    processor.fit(
        processor.preprocess(processor.read_data(train, data_format="parquet")), min_categr_count=1
    )
    Path(home, "sizes.json").write_text(json.dumps(sizes))
    seed_everything(1)
    model = build_model(home, sizes)
    model._max_gradient_norm = 10.0  # what its fit() sets; fit() itself would want a validation set
    for _, rows in zip(range(steps), raw_batches(train, processor, batch, Clock(), labels=True)):
        loss = model.train_step(rows)
    model.save_weights(f"{home}/model.pt")
    parameters = sum(p.numel() for p in model.parameters())
    print(
        json.dumps(
            {"parameters": parameters, "steps": steps, "loss": loss.item() if steps else None}
        )
    )


def direct_loader(path: str, processor, batch: int, workers: int, clock: Clock):
    from torch.utils.data import DataLoader, IterableDataset

    class Raw(IterableDataset):
        def __iter__(self) -> Iterator[dict]:
            return raw_batches(path, processor, batch, clock)

    return DataLoader(
        Raw(), batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
    )


def transformed_loader(
    path: str, processor, model, block: int, batch: int, workers: int, clock: Clock
):
    """What FuxiCTR does of itself: all rows transformed into parquet, then read again."""
    import ray
    from fuxictr.preprocess.build_dataset import init_ray, transform
    from fuxictr.pytorch.dataloaders import RankDataLoader

    init_ray()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # Ray's default promises no order of blocks,
    context.use_datasource_v2 = False  # and its newer parquet reader (2.60) keeps none even so
    context.print_on_execution_start = False
    clock("transform")
    split = "score_parts" if block else "score"
    shutil.rmtree(Path(processor.data_dir, split), ignore_errors=True)
    transform(
        processor,
        processor.preprocess(processor.read_data(path, data_format="parquet")),
        split,
        block,
    )
    clock("load")
    ready = f"{processor.data_dir}/{split}" + ("" if block else ".parquet")
    options = {
        "batch_size": batch,
        "shuffle": False,
        "num_workers": workers,
        "data_format": "parquet",
    }
    return RankDataLoader(model.feature_map, stage="test", test_data=ready, **options)


def score(path: str, home: str, out: str, way: str, batch: int, workers: int, block: int) -> None:
    memory, clock = TreeMemory(), Clock()
    memory.start()
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    processor = new_processor(home).load_pickle()
    model = build_model(home, json.loads(Path(home, "sizes.json").read_text()))
    model.load_weights(f"{home}/model.pt")
    if way == "direct":
        loader = direct_loader(path, processor, batch, workers, clock)
    else:
        loader = transformed_loader(
            path, processor, model, block * (way == "blocks"), batch, workers, clock
        )
    clock("predict")
    predictions = model.predict(loader)
    clock("write")
    pq.write_table(
        pa.table({f"{name}_pred": np.array(predictions[name], np.float32) for name in LABELS}), out
    )
    clock("end")
    report(
        clock,
        memory,
        way,
        {"batch": batch, "workers": workers, "rows": len(predictions[LABELS[0]])},
    )


def report(clock: Clock, memory: TreeMemory, way: str, settings: dict[str, int]) -> None:
    total = sum(clock.seconds.values())
    peaks = {"peak_mib": resource.RUSAGE_SELF, "child_mib": resource.RUSAGE_CHILDREN}
    result = {
        "way": way,
        **settings,
        **{name: round(value, 2) for name, value in clock.seconds.items()},
    }
    result |= {"seconds": round(total, 2), "rows_per_s": round(settings["rows"] / total)}
    used = {name: resource.getrusage(who) for name, who in peaks.items()}
    result |= {name: usage.ru_maxrss // 1024 for name, usage in used.items()}
    result["cpu_s"] = round(sum(usage.ru_utime + usage.ru_stime for usage in used.values()), 1)
    print("RESULT " + json.dumps(result | {"tree_mib": memory.peak_kib // 1024}))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)
    making = commands.add_parser("generate", help="write a table of raw rows")
    making.add_argument("path")
    making.add_argument("--rows", type=int, default=5_000_000)
    making.add_argument("--seed", type=int, default=1)
    preparing = commands.add_parser("prepare", help="fit the processor, build and save the model")
    preparing.add_argument("train")
    preparing.add_argument("home", help="folder of the processor and the model")
    preparing.add_argument("--embedding", type=int, default=16)
    preparing.add_argument("--bottom", type=int, nargs="+", default=[256, 128])
    preparing.add_argument("--tower", type=int, nargs="+", default=[64])
    preparing.add_argument("--steps", type=int, default=20)
    preparing.add_argument("--batch", type=int, default=4096)
    scoring = commands.add_parser("score", help="score a table of raw rows")
    for name in ("path", "home", "out"):
        scoring.add_argument(name)
    scoring.add_argument("--way", choices=["single", "blocks", "direct"], default="direct")
    scoring.add_argument("--batch", type=int, default=10_000)
    scoring.add_argument(
        "--workers", type=int, default=1, help="processes (direct), batches ahead (single, blocks)"
    )
    scoring.add_argument("--block", type=int, default=500_000, help="rows of a part (blocks)")
    return top


def main() -> None:
    arguments = parser().parse_args()
    if arguments.command == "generate":
        generate(arguments.path, arguments.rows, arguments.seed)
    elif arguments.command == "prepare":
        sizes = {
            "embedding": arguments.embedding,
            "bottom": arguments.bottom,
            "tower": arguments.tower,
        }
        prepare(arguments.train, arguments.home, sizes, arguments.steps, arguments.batch)
    else:
        home = os.path.abspath(arguments.home)
        score(
            arguments.path,
            home,
            arguments.out,
            arguments.way,
            arguments.batch,
            arguments.workers,
            arguments.block,
        )


if __name__ == "__main__":
    sys.exit(main())
