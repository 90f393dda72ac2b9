"""Search in a gallery: exact in blocks, or by FAISS; optionally re-ranked; a table and a picture of
ranked lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ....base.account import Account, note, opened
from ....base.errors import InputError, fail, nearest, one_line, shown
from ....base.extras import install_line
from ....base.files import write_aside
from ....data.formats.pictures import read_picture
from ....data.formats.tables import suffix_of
from ....data.persons.identity_sets import identity_in
from ...engine.accounts import publish
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference.output import read_output, refuse_input_as_output, writer_of
from ...engine.inference.predictor import Predictor
from ...engine.runs.checkpoint import load_weights
from ...engine.runs.loaded import Loaded, load_run, open_spec
from ...engine.runs.paths import homes_of
from ...engine.runs.run_directory import ACCOUNT, RunDirectory
from ...figures.style import save_png
from ...metrics.reranking import rerank
from ..answers import Answering, answer_line, stored_answering, threshold_line, with_answers
from ..data import ReidSpec
from ..figures import QUERY, Tile, mosaic
from ..options import ReidOptions, ReidPredictOptions, SearchOptions
from ..pipeline import ReidPipeline
from ..prediction import fingerprint, identities_of, vector_columns

BLOCK_NUMBERS = 1 << 25  # similarities in memory at once
MOST_RERANKED = 100_000  # pictures that are all compared with each other
SHOWN_SIDE = 160  # pixels of a shown picture's height
SHOWN_ITEMS = 10  # of each list
SAID, SAID_QUERIES = 3, 5  # hits and queries that the terminal names
MOST_FAILURES = 20  # pictures that the terminal names
NO_THRESHOLD = (
    "scores rank the gallery; they do not say that two pictures show the same, and the best hit is "
    "listed also where nobody fits"
)


@dataclass(frozen=True)
class Embedded:
    """Pictures with their vectors (n, E), how many could not be read, and the identities that are
    known.
    """

    items: list[str]
    files: list[str]
    vectors: np.ndarray
    failed: int
    identities: Sequence[str | None] = ()


@dataclass(frozen=True)
class Ranked:
    """What `search` wrote. `failed`: queries and gallery pictures that could not be read."""

    output: Path
    failed: int

    def table(self) -> pl.DataFrame:
        """query, rank, item, file, score, identity; of a run with a threshold also the probability
        that the item shows the same identity, and the answer to the query.
        """
        return read_output(self.output)


def search(pipeline: ReidPipeline, options: SearchOptions) -> Ranked:
    """Rank the gallery for each query; writes OUTPUT and OUTPUT.png."""
    output = Path(options.output)
    writer_of(output, {})
    refuse_input_as_output(output, (options.gallery, options.query))
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output or --overwrite")
    with opened(options.accept, homes_of(options)) as account:
        return _search(pipeline, options, output, account)


def _search(
    pipeline: ReidPipeline, options: SearchOptions, output: Path, account: Account
) -> Ranked:
    column = _column(pipeline, options)
    answering = _answering(options)
    mark = fingerprint(options.run)
    embedder = Embedder(pipeline, options)
    gallery = _embedded(embedder, options.gallery, column, mark)
    query = _embedded(embedder, options.query, column, mark)
    refuse_input_as_output(output, (*gallery.files, *query.files))
    if query.vectors.shape[1] != gallery.vectors.shape[1]:
        raise fail(
            options.gallery,
            f"vectors have {gallery.vectors.shape[1]} numbers, those of the queries "
            f"{query.vectors.shape[1]}: they are of other --embedding heads",
        )
    answering = _fitting(options, answering, gallery.vectors.shape[1])
    publish(account, Path(f"{output}.{ACCOUNT}"))
    score, place = _nearest(query, gallery, min(options.k, len(gallery.items)), options)
    rows = _rows(query, gallery, score, place)
    if answering is not None:
        cosine = np.einsum("qe,qke->qk", query.vectors, gallery.vectors[place])
        rows = with_answers(rows, cosine, answering)
    _write(output, rows, mark)
    if options.shown:
        _draw_lists(Path(f"{output}.png"), query, gallery, score, place, options.shown)
    failed = query.failed + gallery.failed
    for line in best_lines(rows):
        say(line)
    say(NO_THRESHOLD if answering is None else threshold_line(answering, len(gallery.items)))
    k, pictures = place.shape[1], len(gallery.items)
    say(
        f"{output}: {len(query.items)} queries, {k} of {pictures} pictures each"
        + (f"; {failed} pictures could not be read" if failed else "")
    )
    return Ranked(output, failed)


def _rows(query: Embedded, gallery: Embedded, score: np.ndarray, place: np.ndarray) -> pl.DataFrame:
    """The ranked lists, by query and rank. score, place: (Q, k)."""
    k = place.shape[1]
    return pl.DataFrame(
        {
            "query": np.repeat(query.items, k),
            "rank": np.tile(np.arange(1, k + 1), len(query.items)),
            "item": [gallery.items[j] for j in place.ravel()],
            "file": [gallery.files[j] for j in place.ravel()],
            "score": score.ravel().astype(np.float32),
            "identity": pl.Series([gallery.identities[j] for j in place.ravel()], dtype=pl.String),
        }
    )


def _answering(options: SearchOptions) -> Answering | None:
    """How the run answers; None where it has no threshold.

    Raises InputError for a --false-match that nothing can be done with.
    """
    path = RunDirectory.open(options.run, "reid").path / "calibration.safetensors"
    answering = stored_answering(load_weights(path))
    if answering is None and options.false_match is not None:
        why = "has no threshold, as it is of an older version, of cca or had no validation part"
        raise fail(options.run, f"--false-match {options.false_match:g}: the run {why}")
    return None if answering is None else answering.at(options.false_match)


def _fitting(options: SearchOptions, answering: Answering | None, width: int) -> Answering | None:
    """The same for vectors of that many numbers: there is no threshold for those of other heads."""
    if answering is None or answering.width == width:
        return answering
    why = "have no threshold, which is for vectors of the heads of the training"
    if options.false_match is not None:
        raise fail(options.gallery, f"--false-match: vectors of {width} numbers {why}")
    note("assumed", f"no answers: vectors of {width} numbers {why}")
    return None


def _column(pipeline: ReidPipeline, options: SearchOptions) -> str:
    """The column of vectors to search by."""
    spec: ReidSpec = open_spec(ReidSpec, RunDirectory.open(options.run, pipeline.task.name))
    names = spec.attributes
    if not names:
        if options.attribute is not None:
            raise InputError(
                f"--attribute {options.attribute}: the run has one space for all; leave it out"
            )
        return "vector"
    if options.attribute not in names:
        hint = nearest(str(options.attribute), names) if options.attribute else ""
        raise InputError(
            f"--attribute {options.attribute}: the run compares by one of {', '.join(names)}{hint}"
        )
    return dict(zip(names, vector_columns(names), strict=True))[options.attribute]


def _write(output: Path, rows: pl.DataFrame, mark: str) -> None:
    """Write the lists in the format that the ending of the output names."""
    writer = writer_of(output, {})
    if writer is None:
        stamp = {"headwise.model": mark}
        write_aside(output, lambda path: rows.write_parquet(path, metadata=stamp))
    else:
        write_aside(output, lambda path: writer(rows.lazy(), path))


def best_lines(rows: pl.DataFrame) -> Iterator[str]:
    """The answers to the first queries, as far as there are some, and the best hits, in words."""
    for number, (query, hits) in enumerate(rows.group_by("query", maintain_order=True)):
        if number == SAID_QUERIES:
            yield "…"
            break
        texts = []
        for item, score, identity in (
            hits.select("item", "score", "identity").head(SAID).iter_rows()
        ):
            named = f"{identity} ({item})" if identity else item
            texts.append(f"{named} {score:.3f}")
        if "answer" in hits.columns:
            yield f"{query[0]}: {answer_line(hits)}; nearest: {', '.join(texts)}"
        else:
            yield f"{query[0]}: {', '.join(texts)}"


class Embedder:
    """Gives the rows of pictures by a run, which is opened when it is first needed."""

    def __init__(self, pipeline: ReidPipeline, options: SearchOptions) -> None:
        self.pipeline, self.options = pipeline, options
        self._loaded: Loaded[ReidOptions, ReidSpec] | None = None

    def __call__(self, pictures: str) -> pl.DataFrame:
        """One row for each picture that a path names, as `embed` writes it."""
        options = self.options
        embed_options = ReidPredictOptions(
            run=options.run,
            input=pictures,
            output=options.output,
            batch_size=options.batch_size,
            accelerator=options.accelerator,
        )
        self._loaded = self._loaded or load_run(self.pipeline, options.run, options.accelerator)
        items = self.pipeline.list_items(embed_options, self._loaded.spec)
        predictor = Predictor(self.pipeline, embed_options, self._loaded)
        tables = []
        with Progressbar(total=len(items), unit="picture", desc="embed") as bar:
            for start in range(0, len(items), embed_options.shard_size):
                some = items[start : start + embed_options.shard_size]
                tables.append(predictor(some))
                bar.update(len(some))
        rows = pl.concat(tables)
        failures = rows.filter(pl.col("status") == "error").select("item", "error")
        for item, error in failures.head(MOST_FAILURES).iter_rows():
            say(f"  {item}: {error}")
        return rows


def _embedded(embedder: Embedder, pictures: str, column: str, mark: str) -> Embedded:
    """Vectors of a parquet that `embed` wrote, or of pictures, embedded now."""
    path = Path(pictures)
    if path.is_file() and suffix_of(path) == ".parquet":
        stored = _stored(path, column, mark)
        if stored is not None:
            note("read", "vectors", count=len(stored.items))
            return stored
    return _of_rows(path, embedder(pictures), column, mark, identities_of(pictures))


def _stored(path: Path, column: str, mark: str) -> Embedded | None:
    """The vectors of a parquet; None for a table of something else.

    Raises InputError for vectors of another model.
    """
    try:
        names = pl.scan_parquet(path, glob=False).collect_schema().names()
    except Exception as error:
        raise fail(path, f"cannot be read as parquet ({error})") from None
    if "model" not in names or not any(name.startswith("vector") for name in names):
        return None
    if column not in names:
        raise fail(path, f"holds no column {shown(column)}; it was made by another run")
    columns = [name for name in ("item", "file", "status", "model", column) if name in names]
    return _of_rows(path, pl.read_parquet(path, columns=columns, glob=False), column, mark, {})


def _of_rows(
    path: Path, table: pl.DataFrame, column: str, mark: str, identities: Mapping[str, str]
) -> Embedded:
    """The vectors in the rows of `embed`.

    path: where they come from, for messages. identities: of items, where a table says it.
    """
    names = table.columns
    good = table.filter(pl.col("status") == "ok") if "status" in names else table
    if not len(good):
        raise fail(path, "holds no picture that could be read")
    foreign = good.filter(pl.col("model") != mark)["model"]
    if len(foreign):
        cure = "embed them with this run"
        raise fail(path, f"vectors are of the model {foreign[0]}, the run is {mark}; {cure}")
    if good[column].list.len().n_unique() != 1:
        raise fail(path, "vectors have several lengths")
    vectors = good[column].explode().to_numpy().reshape(len(good), -1)
    items = good["item"].to_list()
    files = good["file"].to_list() if "file" in names else items
    told = [identities.get(item) or identity_in(item) for item in items]
    return Embedded(items, files, np.array(vectors, np.float32), len(table) - len(good), told)


def _nearest(
    query: Embedded, gallery: Embedded, k: int, options: SearchOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarity and place (Q, k) of the nearest, best first; with re-ranking, 1 minus its
    distance."""
    if options.rerank:
        count = len(query.items) + len(gallery.items)
        if count > MOST_RERANKED:
            raise InputError(
                f"--rerank: compares all with all, and {count:,} pictures are more than "
                f"{MOST_RERANKED:,}"
            )
        similarity = 1 - rerank(query.vectors, gallery.vectors)
        place = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarity, place, 1), place
    if options.faiss is not None:
        return _search_by_faiss(query.vectors, gallery.vectors, k, options.faiss)
    return exact(query.vectors, gallery.vectors, k)


def exact(query: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest inner products and their places (Q, k), in blocks of the gallery; equal ones in the
    order of the gallery."""
    step = max(k, BLOCK_NUMBERS // max(1, len(query)))
    score = torch.empty(len(query), 0)
    place = torch.empty(len(query), 0, dtype=torch.int64)
    queries = torch.from_numpy(query)
    with Progressbar(total=len(gallery), unit="picture", desc="search") as bar:
        for start in range(0, len(gallery), step):
            block = torch.from_numpy(gallery[start : start + step])
            candidates = torch.cat([score, queries @ block.T], 1)
            places = torch.arange(start, start + len(block)).expand(len(query), -1)
            best = candidates.sort(dim=1, descending=True, stable=True).indices[:, :k]
            place = torch.cat([place, places], 1).gather(1, best)
            score = candidates.gather(1, best)
            bar.update(len(block))
    return score.numpy(), place.numpy()


def _search_by_faiss(
    query: np.ndarray, gallery: np.ndarray, k: int, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            f"--faiss: needs FAISS; {install_line('search')}, or leave --faiss out"
        ) from None
    try:
        index = faiss.index_factory(gallery.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.train(gallery)
        index.add(gallery)
        score, place = index.search(query, k)
    except RuntimeError as error:
        why = one_line(error)[-160:]  # the start names functions of FAISS
        raise InputError(
            f"--faiss {kind}: FAISS makes no such index of {len(gallery)} pictures ({why})"
        ) from None
    if (place < 0).any():
        raise InputError(
            f"--faiss {kind}: finds fewer than {k} pictures for some query; take a smaller --k or "
            "Flat"
        )
    return score, place


def _draw_lists(
    path: Path,
    query: Embedded,
    gallery: Embedded,
    score: np.ndarray,
    place: np.ndarray,
    queries: int,
) -> None:
    """Ranked lists of the first queries; a picture that can no longer be read is grey."""
    rows = []
    for row in range(min(queries, len(query.items))):
        name = Path(query.items[row]).name[:16]
        nearest_tiles = [
            Tile(_small(gallery.files[j]), QUERY, f"{similarity:.3f}")
            for j, similarity in zip(place[row, :SHOWN_ITEMS], score[row], strict=False)
        ]
        rows.append([Tile(_small(query.files[row]), QUERY, name), *nearest_tiles])
    figure = mosaic(rows, 1 + place[:, :SHOWN_ITEMS].shape[1])
    save_png(figure, path)


def _small(file: str) -> torch.Tensor:
    try:
        image = torch.from_numpy(read_picture(file))
    except InputError:
        return torch.full((3, SHOWN_SIDE, SHOWN_SIDE // 2), 200, dtype=torch.uint8)
    step = max(1, image.shape[1] // SHOWN_SIDE)
    return image[:, ::step, ::step]
