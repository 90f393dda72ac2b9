"""Retrieval scores and re-ranking at the size of Market-1501, on generated vectors.

    python benchmarks/ops/retrieval.py [--queries 3368] [--gallery 15913] \\
        [--width 768] [--spread 2.5]

Vectors are drawn around 750 identities; a sixth of the gallery is distractors and a sixth junk; 6
cameras. The rival is how public code scores (torchreid, TransReID): all rows by argsort, then a
loop over queries. It is timed with numpy's default sort, as there, and compared with ours with a
stable one, because only then are ties in a defined order. Both are run in turn in one process, and
the fastest of `--rounds` counts. Re-ranking is timed in processes of their own; its memory is their
high-water mark less what they held before the call: with the result (Q, G), without the vectors
given to it. `--spread` is the noise around an identity's centre; inf: no identities at all.
"""

import multiprocessing
import resource
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from headwise.benchmarks.measure import Call, Case, Size, fastest, print_header, print_row
from headwise.pipelines.metrics.reranking import rerank
from headwise.pipelines.metrics.retrieval import (
    Retrieval,
    bootstrap,
    retrieval_scores,
    score_vectors,
    squared_euclidean,
)

IDENTITIES, CAMERAS = 750, 6


def random_vectors(
    queries: int, gallery: int, width: int, spread: float, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Vectors, ids and cameras of queries and gallery."""
    rng = np.random.default_rng(seed)
    query_ids, gallery_ids = (
        rng.integers(1, IDENTITIES + 1, queries),
        rng.integers(1, IDENTITIES + 1, gallery),
    )
    gallery_ids[rng.random(gallery) < 1 / 3] = 0
    gallery_ids[(gallery_ids == 0) & (rng.random(gallery) < 1 / 2)] = -1
    centre = rng.standard_normal((IDENTITIES + 1, width), dtype=np.float32)
    vectors = []
    for ids in (query_ids, gallery_ids):
        near = centre[np.where(ids > 0, ids, rng.integers(1, IDENTITIES + 1, len(ids)))]
        near *= 1 / spread
        near += rng.standard_normal(near.shape, dtype=np.float32)
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        vectors.append(near)
    cameras = [rng.integers(0, CAMERAS, n) for n in (queries, gallery)]
    return *vectors, query_ids, gallery_ids, *cameras


def argsort_and_loop(
    distance: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    kind: Literal["stable"] | None = None,
) -> tuple[float, float, np.ndarray]:
    """Mean AP, mean INP and CMC to 50."""
    indices = np.argsort(distance, axis=1, kind=kind)
    matches = (gallery_ids[indices] == query_ids[:, None]).astype(np.int32)
    ap, inp, cmc = [], [], []
    for q in range(len(distance)):
        ids, cameras = gallery_ids[indices[q]], gallery_cameras[indices[q]]
        same_camera = (ids == query_ids[q]) & (cameras == query_cameras[q])
        matching = matches[q][~(same_camera | (ids == -1))]
        if not matching.any():
            continue
        hits = matching.cumsum()
        last = np.flatnonzero(matching)[-1]
        inp.append(hits[last] / (last + 1))
        cmc.append(np.minimum(hits, 1)[:50])
        ap.append((hits / np.arange(1, len(hits) + 1) * matching).sum() / matching.sum())
    return float(np.mean(ap)), float(np.mean(inp)), np.mean(cmc, axis=0)


def cases(size: Size) -> Iterator[Case]:
    """Ours and the loop."""
    sizes = {"tiny": (100, 400, 4), "short": (500, 15913, 768), "full": (3368, 15913, 768)}[size]
    ours, others, _ = ways(random_vectors(*sizes, spread=2.5))
    yield Case(f"{sizes[0]:,} queries, {sizes[1]:,} pictures", ours, others, memory=False)


def ways(data: tuple[np.ndarray, ...]) -> tuple[Call, dict[str, Call], Retrieval]:
    """Ours, the loop with both sorts, and the scores, which are those of the stable one."""
    given = squared_euclidean(data[0], data[1]), *data[2:]
    stable = partial(argsort_and_loop, *given, kind="stable")
    ours, theirs = retrieval_scores(*given), stable()
    np.testing.assert_allclose((ours.mean_ap, ours.mean_inp), theirs[:2], rtol=1e-12)
    np.testing.assert_allclose(ours.cmc, theirs[2], rtol=1e-12)
    others = {
        "argsort and loop": partial(argsort_and_loop, *given),
        "stable argsort and loop": stable,
    }
    return partial(retrieval_scores, *given), others, ours


def reranked(answer: SimpleQueue, queries: int, gallery: int, width: int, spread: float) -> None:
    """Put the seconds, the bytes and the mAP of one re-ranking into `answer`."""
    data = random_vectors(queries, gallery, width, spread)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    begun = time.perf_counter()
    result = rerank(data[0], data[1])
    seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    answer.put((seconds, memory, retrieval_scores(result, *data[2:]).mean_ap))


def main(
    queries: int = 3368,
    gallery: int = 15913,
    width: int = 768,
    spread: float = 2.5,
    rounds: int = 3,
) -> None:
    spawning = multiprocessing.get_context("spawn")
    answer = spawning.SimpleQueue()
    measured: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        child = spawning.Process(target=reranked, args=(answer, queries, gallery, width, spread))
        child.start()
        measured.append(answer.get())
        child.join()
    data = random_vectors(queries, gallery, width, spread)
    call, others, ours = ways(data)
    best = fastest([call, *others.values()], seconds=0, least=rounds)
    sizes = f"{gallery:,} gallery pictures, {width} numbers, {ours.skipped} skipped"
    print(f"{queries:,} generated queries, {sizes}")
    print_header("form", "seconds", "ours is faster by")
    for name, spent in zip(("ours", *others), best, strict=True):
        print_row(name, f"{spent:.2f}", f"{spent / best[0]:.1f}x")
    scores = f"mAP {ours.mean_ap:.6f}, mINP {ours.mean_inp:.6f}, rank 1 {ours.cmc[0]:.6f}"
    print(f"{scores}; all equal to the stable form's")
    begun = time.perf_counter()
    low, high = bootstrap(ours, data[2])["mean_ap"]
    spent = time.perf_counter() - begun
    print(f"bootstrap, 1,000 draws: {spent:.2f} s, mAP from {low:.4f} to {high:.4f}")
    begun = time.perf_counter()
    score_vectors(*data, metric="euclidean")
    print(f"scores from vectors: {time.perf_counter() - begun:.2f} s")
    seconds, memory, mean_ap = zip(*measured)
    spent = f"{min(seconds):.1f} s, {max(memory) / 2**20:.0f} MiB"
    print(f"re-ranking: {spent}, mAP {mean_ap[-1]:.6f}")


if __name__ == "__main__":
    tyro.cli(main)
