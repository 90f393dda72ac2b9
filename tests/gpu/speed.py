"""Times of every workload on a GPU, beside its roof and beside the best other way."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from headwise.tests.gpu.roofline import Work, tensors_of, works
from headwise.tests.gpu.workloads import WORKLOADS, Call, Numbers, Workload

WARM_UP, MEASURED = 10, 40  # milliseconds of each call
COLUMNS = ("operator", "shape", "pass", "ms", "share", "rival", "rival_ms", "ratio")


def milliseconds(call: Call, device: torch.device) -> float:
    """Median of the calls; on a CPU one call, which measures nothing but that it runs."""
    if device.type == "cuda":
        from triton.testing import do_bench

        return float(do_bench(call, warmup=WARM_UP, rep=MEASURED, return_mode="median"))
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def backward_of(call: Call, leaves: list[Tensor]) -> Call | None:
    """The backward pass alone of a call; None where it has none."""
    results = [x for x in tensors_of(call()) if x.requires_grad]
    if not results:
        return None
    slopes = [torch.randn_like(x) for x in results]
    return lambda: torch.autograd.grad(
        results, leaves, slopes, retain_graph=True, allow_unused=True
    )


def passes(make: Numbers, call: Call | None) -> dict[str, Call | None]:
    """The calls of both passes of one way."""
    if call is None:
        return {}
    return {"forward": call, "backward": backward_of(call, make.tensors)}


def row(workload: Workload, name: str, work: Work, ours: float, rival: float | None) -> dict:
    """One line of the table and of the JSON."""
    return {
        "operator": workload.operator,
        "shape": f"{workload.shape} {str(workload.dtype).removeprefix('torch.')}",
        "pass": name,
        "bytes": work.bytes,
        "flops": work.flops,
        "ms": ours,
        "roof_ms": 1e3 * work.roof,
        "limit": work.limit,
        "share": 1e3 * work.roof / ours,
        "rival": workload.rival,
        "rival_ms": rival,
        "ratio": None if rival is None else rival / ours,
    }


def timed(workload: Workload, device: torch.device, tiny: bool) -> Iterator[dict]:
    """The rows of a workload."""
    make = Numbers(device, workload.dtype)
    prepared = workload.build(make, *(workload.tiny if tiny else workload.sizes))
    ours, rivals = passes(make, prepared.call), passes(make, prepared.rival)
    for name, work in works(workload).items():
        call, rival = ours[name], rivals.get(name)
        assert call is not None, workload.operator
        theirs = None if rival is None else milliseconds(rival, device)
        yield row(workload, name, work, milliseconds(call, device), theirs)


def rows(device: torch.device, tiny: bool, names: set[str], late: Callable[[], bool]) -> list[dict]:
    """All rows, as many as there is time for; a workload that raises gives a row that says so."""
    torch.manual_seed(0)
    out: list[dict] = []
    for workload in WORKLOADS:
        if workload.operator not in names:
            continue
        if late():
            out.append({"operator": workload.operator, "shape": workload.shape, "skipped": True})
            continue
        try:
            out += timed(workload, device, tiny)
        except Exception as error:
            about = str(error).strip().splitlines()[-1][:200] if str(error).strip() else ""
            fault = f"{type(error).__name__}: {about}"
            out.append({"operator": workload.operator, "shape": workload.shape, "fault": fault})
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return out


def key(some: dict) -> tuple[str, str, str]:
    """What a row is about."""
    return some["operator"], some["shape"], some.get("pass", "")


def lines(table: list[dict], before: list[dict]) -> Iterator[str]:
    """The rows as text; before: those of the run before, to say what changed."""
    known = {key(some): some for some in before if "ms" in some}
    yield (
        f"{'operator':26}{'pass':10}{'ms':>9}{'roof':>9}{'of roof':>9}{'rival ms':>10}"
        f"{'ratio':>7}{'before':>9}  rival; shape"
    )
    for some in table:
        if "skipped" in some:
            yield f"{some['operator']:26}not timed: no time (--minutes)"
            continue
        if "fault" in some:
            yield f"{some['operator']:26}{some['fault']}"
            continue
        rival = f"{some['rival_ms']:10.3f}{some['ratio']:7.2f}" if some["ratio"] else f"{'':17}"
        change = ""
        if old := known.get(key(some)):
            change = f"{100 * (some['ms'] / old['ms'] - 1):+.0f} %"
        yield (
            f"{some['operator']:26}{some['pass']:10}{some['ms']:9.3f}{some['roof_ms']:9.3f}"
            f"{100 * some['share']:7.1f} %{rival}{change:>9}  {some['rival']}; {some['shape']}"
        )
