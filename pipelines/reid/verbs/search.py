"""Search in a gallery: exact in blocks, or by FAISS; re-ranked where asked; a table and a picture
of ranked lists.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ....base.errors import InputError, fail, nearest, shown
from ....base.files import write_aside
from ....data.formats.pictures import read_picture
from ....data.formats.tables import suffix_of
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference import shards as inference
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import open_spec
from ...engine.runs.run_directory import RunDirectory
from ..figures import ASKED, mosaic
from ..options import ReidPredictOptions
from ..prediction import fingerprint

BLOCK_NUMBERS = 1 << 25  # similarities held at once
MOST_RERANKED = 100_000  # pictures that are compared all with all
SHOWN_SIDE = 160  # pixels of a shown picture's height


@dataclass(frozen=True)
class Embedded:
    """Pictures with their vectors (n, E), and how many could not be read."""

    items: list[str]
    files: list[str]
    vectors: np.ndarray
    failed: int


@dataclass(frozen=True)
class Ranked:
    """What `search` wrote. `failed`: queries and gallery pictures that could not be read."""

    output: Path
    failed: int

    def table(self) -> pl.DataFrame:
        """query, rank, item, file, score."""
        return pl.read_parquet(self.output)


def search(pipeline: AnyPipeline, options: Any) -> Ranked:
    """Rank the gallery for every query; writes OUTPUT and OUTPUT.png."""
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output or --overwrite")
    column = _column(pipeline, options)
    mark = fingerprint(options.run)
    gallery = _embedded(pipeline, options, options.gallery, column, mark)
    query = _embedded(pipeline, options, options.query, column, mark)
    if query.vectors.shape[1] != gallery.vectors.shape[1]:
        raise fail(
            options.gallery,
            f"vectors have {gallery.vectors.shape[1]} numbers, those of the queries "
            f"{query.vectors.shape[1]}: they are of other --embedding heads",
        )
    k = min(options.k, len(gallery.items))
    score, place = _nearest(query, gallery, k, options)
    rows = pl.DataFrame(
        {
            "query": np.repeat(query.items, k),
            "rank": np.tile(np.arange(1, k + 1), len(query.items)),
            "item": [gallery.items[j] for j in place.ravel()],
            "file": [gallery.files[j] for j in place.ravel()],
            "score": score.ravel().astype(np.float32),
        }
    )
    write_aside(output, lambda path: rows.write_parquet(path, metadata={"headwise.model": mark}))
    if options.shown:
        _picture(Path(f"{output}.png"), query, gallery, score, place, options)
    failed = query.failed + gallery.failed
    say(
        f"{output}: {len(query.items)} queries, {k} of {len(gallery.items)} pictures each"
        + (f"; {failed} pictures could not be read" if failed else "")
    )
    return Ranked(output, failed)


def _column(pipeline: AnyPipeline, options: Any) -> str:
    """The column of vectors to search by."""
    spec = open_spec(pipeline.spec_class, RunDirectory.open(options.run, pipeline.task.name))
    names = spec["attributes"]
    if not names:
        if options.attribute is not None:
            raise InputError(
                f"--attribute {options.attribute}: the run has one space for all; leave it out"
            )
        return "vector"
    if options.attribute not in names:
        raise InputError(
            f"--attribute {options.attribute}: the run compares by one of {', '.join(names)}"
            f"{nearest(str(options.attribute), names) if options.attribute else ''}"
        )
    return f"vector_{options.attribute}"


def _embedded(pipeline: AnyPipeline, options: Any, given: str, column: str, mark: str) -> Embedded:
    """Vectors of a parquet that `embed` wrote, or of pictures, embedded now."""
    path = Path(given)
    if (
        path.is_file()
        and suffix_of(path) == ".parquet"
        and (found := _stored(path, column, mark)) is not None
    ):
        return found
    # embed's own parquet is only of use here, so it goes where nobody has to remove it.
    with tempfile.TemporaryDirectory(prefix="headwise-search-") as folder:
        asked = ReidPredictOptions(
            run=options.run,
            input=given,
            output=str(Path(folder) / "vectors.parquet"),
            batch_size=options.batch_size,
            accelerator=options.accelerator,
        )
        predicted = inference.predict(pipeline, asked, alone=True)
        found = _stored(predicted.output, column, mark)
    assert found is not None
    return found


def _stored(path: Path, column: str, mark: str) -> Embedded | None:
    """The vectors of a parquet; None for a table of something else. Raises InputError for those of
    another model.
    """
    try:
        names = pl.read_parquet_schema(path)
    except Exception as error:
        raise fail(path, f"cannot be read as parquet ({error})") from None
    if "model" not in names or not any(name.startswith("vector") for name in names):
        return None
    if column not in names:
        raise fail(path, f"holds no column {shown(column)}; it was made by another run")
    wanted = [name for name in ("item", "file", "status", "model", column) if name in names]
    table = pl.read_parquet(path, columns=wanted)
    good = table.filter(pl.col("status") == "ok") if "status" in names else table
    if not len(good):
        raise fail(path, "holds no picture that could be read")
    others = good.filter(pl.col("model") != mark)
    if len(others):
        raise fail(
            path,
            f"vectors are of the model {others['model'][0]}, the run is {mark}; embed them with this run",
        )
    lengths = good[column].list.len()
    if lengths.n_unique() != 1:
        raise fail(path, "vectors have several lengths")
    vectors = good[column].explode().to_numpy().reshape(len(good), -1)
    files = good["file"].to_list() if "file" in names else good["item"].to_list()
    return Embedded(
        good["item"].to_list(), files, np.array(vectors, np.float32), len(table) - len(good)
    )


def _nearest(
    query: Embedded, gallery: Embedded, k: int, options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarity and place (Q, k) of the nearest, best first; of re-ranking, 1 less its
    distance.
    """
    if options.rerank:
        if len(query.items) + len(gallery.items) > MOST_RERANKED:
            raise InputError(
                f"--rerank: compares all with all, and {len(query.items) + len(gallery.items):,} pictures "
                f"are more than {MOST_RERANKED:,}"
            )
        from ...metrics.reranking import rerank

        similarity = 1 - rerank(query.vectors, gallery.vectors)
        place = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarity, place, 1), place
    if options.faiss is not None:
        return _faiss(query.vectors, gallery.vectors, k, options.faiss)
    return exact(query.vectors, gallery.vectors, k)


def exact(query: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Inner products and places (Q, k) of the largest, blocks of the gallery one by one; of equals
    the first.
    """
    step = max(k, BLOCK_NUMBERS // max(1, len(query)))
    score = torch.empty(len(query), 0)
    place = torch.empty(len(query), 0, dtype=torch.int64)
    given = torch.from_numpy(query)
    with Progressbar(total=len(gallery), unit="picture", desc="search") as bar:
        for start in range(0, len(gallery), step):
            block = torch.from_numpy(gallery[start : start + step])
            found = given @ block.T
            both = torch.cat([score, found], 1)
            numbers = torch.arange(start, start + len(block)).expand(len(query), -1)
            best = both.sort(dim=1, descending=True, stable=True).indices[:, :k]
            place = torch.cat([place, numbers], 1).gather(1, best)
            score = both.gather(1, best)
            bar.update(len(block))
    return score.numpy(), place.numpy()


def _faiss(
    query: np.ndarray, gallery: np.ndarray, k: int, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "--faiss: needs FAISS; pip install 'headwise[search]', or leave --faiss out"
        ) from None
    try:
        index = faiss.index_factory(gallery.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.train(gallery)
        index.add(gallery)
        score, place = index.search(query, k)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise InputError(
            f"--faiss {kind}: FAISS makes no such index of {len(gallery)} pictures ({reason})"
        ) from None
    if (place < 0).any():
        raise InputError(
            f"--faiss {kind}: finds fewer than {k} pictures for some query; take a smaller --k or Flat"
        )
    return score, place


def _picture(
    path: Path,
    query: Embedded,
    gallery: Embedded,
    score: np.ndarray,
    place: np.ndarray,
    options: Any,
) -> None:
    """Ranked lists of the first queries; what cannot be read any more is left grey."""
    rows = []
    for one in range(min(options.shown, len(query.items))):
        best = place[one, :10]
        images = [_small(query.files[one]), *(_small(gallery.files[j]) for j in best)]
        titles = [Path(query.items[one]).name[:16], *(f"{s:.3f}" for s in score[one, :10])]
        rows.append((images, [ASKED] * len(images), titles))
    figure = mosaic(rows, 1 + place[:, :10].shape[1])
    write_aside(path, lambda aside: figure.savefig(aside, format="png", dpi=110))


def _small(file: str) -> torch.Tensor:
    try:
        image = torch.from_numpy(read_picture(file))
    except InputError:
        return torch.full((3, SHOWN_SIDE, SHOWN_SIDE // 2), 200, dtype=torch.uint8)
    step = max(1, image.shape[1] // SHOWN_SIDE)
    return image[:, ::step, ::step]
