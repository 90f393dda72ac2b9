"""How fast a GPU could be at best, operator by operator: bytes, flops and their time on an H100.

    python tests/gpu/roofline.py

prints the table of docs/explanation/kernels.md. Bytes: each input once and each result once, in
the backward pass also results, their gradients and those of the inputs. Flops: of the products,
two for each multiplication with its addition. Both are computed from the shapes, on tensors without
values. Programs and instructions are those of the kernels as launched, compiled for sm_90."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from headwise.kernels import fused_attention, register
from headwise.tests.gpu.workloads import WORKLOADS, Numbers, Workload
from headwise.tests.kernels import compiling

BYTES, MULTIPROCESSORS = 3.35e12, 132
# Of the tensor cores: half precision, and float32 as three products of TF32.
FLOPS = {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 165e12}


class Work(NamedTuple):
    """One pass. roof: the least seconds, by memory or by products."""

    bytes: int
    flops: float
    dtype: torch.dtype

    @property
    def by_memory(self) -> float:
        return self.bytes / BYTES

    @property
    def by_products(self) -> float:
        return self.flops / FLOPS[self.dtype]

    @property
    def roof(self) -> float:
        return max(self.by_memory, self.by_products)

    @property
    def limit(self) -> str:
        return "memory" if self.by_memory >= self.by_products else "products"


def size(tensors: list[Tensor]) -> int:
    """Bytes of tensors, each once."""
    return sum(x.numel() * x.element_size() for x in {id(x): x for x in tensors}.values())


def tensors_of(values: object) -> list[Tensor]:
    return [x for x in tree_flatten(values)[0] if isinstance(x, Tensor)]


def works(workload: Workload) -> dict[str, Work]:
    """The forward pass, and the backward pass where there is one."""
    make = Numbers(torch.device("meta"), workload.dtype)
    with pretended():
        results = tensors_of(workload.build(make, *workload.sizes).call())
    moved = size(make.tensors) + size(results)
    forward, backward = workload.products(*workload.sizes)
    passes = {"forward": Work(moved, forward, workload.dtype)}
    smooth = [x for x in results if x.requires_grad]
    if smooth:
        moved += size(smooth) + size([x for x in make.tensors if x.requires_grad])
        passes["backward"] = Work(moved, backward, workload.dtype)
    return passes


class Forms(TorchDispatchMode):
    """Within, operators on tensors without values take the forms of an H100: `launches`, of
    kernels; `forms`, what each operator took.
    """

    def __init__(self, launches: list) -> None:
        super().__init__()
        self.launches = launches
        self.forms: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.namespace != "headwise":
            return func(*args, **(kwargs or {}))
        definition, before = OPDEFS[func.name()], len(self.launches)
        # Those that choose between forms of PyTorch have none of their own for CUDA.
        usual = definition._init_fn if func.name() in CHOOSING else func
        form = definition._backend_fns.get("cuda") or usual
        fused: list[str] = []
        with calls_noted(fused):
            out = form(*args)
        grouped = func.name() in GROUPED and takes_grouped_mm(*args[:2])
        if grouped:
            del self.launches[before:]
        taken = "kernel" if len(self.launches) > before else "PyTorch"
        taken = "fused" if fused else taken
        self.forms.append("grouped_mm" if grouped else taken)
        return out


CHOOSING = ("headwise::attention_stats_backward",)


@contextmanager
def calls_noted(names: list[str]) -> Iterator[None]:
    """Within, calls of PyTorch's fused attention are put into the list."""

    def noted(run):  # type: ignore[no-untyped-def]
        return lambda *x, **y: (names.append("fused"), run(*x, **y))[1]

    forms = ("attend", "attend_backward")
    with ExitStack() as patches:
        for name in forms:
            run = noted(getattr(fused_attention, name))
            patches.enter_context(patch.object(fused_attention, name, run))
        yield


GROUPED = ("headwise::grouped_linear", "headwise::grouped_linear_backward")


def takes_grouped_mm(x: Tensor, weight: Tensor) -> bool:
    """What `native.refused` says on an H100, of tensors as they are timed: enough rows, aligned."""
    return x.dtype == torch.bfloat16


@contextmanager
def pretended() -> Iterator[list]:
    """A GPU that takes every kernel; the launches that it is asked for."""
    with (
        patch.object(register, "triton_refused", lambda *tensors: ""),
        patch.object(fused_attention, "device_refused", lambda x: ""),
        patch.object(torch.cuda, "device", lambda device: nullcontext()),
        patch.object(torch, "autocast", lambda *some, **options: nullcontext()),
        patch.object(torch, "is_autocast_enabled", lambda *device: False),
        compiling.recorded() as recorded,
    ):
        yield recorded


def launches(workload: Workload) -> dict[str, tuple[list, list[str]]]:
    """(launches of kernels, forms taken) of each pass."""
    make = Numbers(torch.device("meta"), workload.dtype)
    out = {}
    with pretended() as recorded:
        prepared = workload.build(make, *workload.sizes)
        with Forms(recorded) as mode:
            results = tensors_of(prepared.call())
            out["forward"] = list(recorded), list(mode.forms)
            recorded.clear()
            mode.forms.clear()
            smooth = [x for x in results if x.requires_grad]
            if smooth:
                total = sum(x.float().sum() for x in smooth)
                torch.autograd.grad(total, make.tensors, allow_unused=True)  # type: ignore[arg-type]
                out["backward"] = list(recorded), list(mode.forms)
    return out


def most(launched: list, work: Work) -> tuple[str, str]:
    """(kernels, programs and instruction, the largest share of the roof that they allow).

    A program runs on one multiprocessor, so fewer programs than multiprocessors leave some idle.
    Nothing else is counted: the share of a finished kernel is smaller.
    """
    if not launched:
        return "PyTorch's operators", ""
    programs = max(torch.Size(launch.grid).numel() for launch in launched)
    products = {compiling.resources(launch, "90")["products"] for launch in launched}
    used = "wgmma" if any("wgmma" in x for x in products) else "mma" if any(products) else ""
    share = min(1.0, programs / MULTIPROCESSORS)
    text = f"{100 * share:.0f} %" if share < 1 else "any"
    if work.limit == "products" and used != "wgmma":
        text += ", but without wgmma"
    if work.limit == "products" and not used:
        return f"PyTorch's products, {len(launched)} kernel{'s' * (len(launched) > 1)}", "any"
    kernels = f"{len(launched)} kernel{'s' * (len(launched) > 1)}, {programs:,} programs"
    return f"{kernels}, {used}".removesuffix(", "), text


def figures(workload: Workload, name: str, work: Work) -> list[str]:
    """The columns that shapes decide."""
    return [
        f"`{workload.operator}`",
        f"{workload.shape}, {str(workload.dtype).removeprefix('torch.')}",
        name,
        f"{work.bytes / 1e6:.1f}",
        f"{work.flops / 1e9:.1f}" if work.flops else "",
        f"{work.roof * 1e6:.1f}, {work.limit}",
    ]


def rows() -> Iterator[list[str]]:
    """The rows of the table."""
    for workload in WORKLOADS:
        launched = launches(workload)
        for name, work in works(workload).items():
            kernels, forms = launched[name]
            ours, share = most(kernels, work)
            if "grouped_mm" in forms:
                ours = "`F.grouped_mm`"
            elif "fused" in forms:
                ours = "PyTorch's fused attention"
            yield [*figures(workload, name, work), ours, share, workload.rival]


COLUMNS = (
    *("operator", "shape", "pass", "MB", "GFLOP", "roof in µs, by"),
    *("what runs", "expected at most", "other way"),
)


def main() -> None:
    """Print the table."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
