"""What this machine and this installation are: `environment.json` of a run and `headwise
doctor`.
"""

import os
import platform
import subprocess
import sys
import textwrap
from importlib import metadata, util
from pathlib import Path

from ....base.extras import install_line
from ..spec import JsonValue

PACKAGES = ("torch", "triton", "lightning-fabric", "numpy", "polars", "scikit-learn", "safetensors")
# optional part -> (module that shows it is there, what it is for)
OPTIONAL = {
    "vision": ("timm", "image pipelines"),
    "wsi": ("openslide", "whole-slide images"),
    "medical": ("pydicom", "DICOM radiographs"),
    "speech": ("soundfile", "speech to text"),
    "excel": ("fastexcel", "tables in .xlsx and .ods"),
    "openmmlab": ("mmseg", "mmsegmentation and mmdetection adapters"),
    "onnx": ("onnxruntime", "export as ONNX (export --output model.onnx)"),
    "ray": ("ray", "batch inference over a cluster (--engine ray), and headwise serve"),
    "search": ("faiss", "search in large galleries (reid search --faiss)"),
    "video": ("av", "videos, and recordings in m4a, mp4 and webm"),
    "tensorboard": ("tensorboard", "--logger tensorboard"),
    "wandb": ("wandb", "--logger wandb"),
}


def version(package: str) -> str | None:
    """Installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of this source tree, marked when it has changes; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + (" with changes" if changed.strip() else "")


def environment(task: str, seed: int, device: str, world: int) -> dict[str, JsonValue]:
    """What a run was made with; goes into `environment.json`."""
    from .... import __version__

    return {
        "task": task,
        "headwise": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": device,
        "processes": world,
        "cpu_count": os.cpu_count(),
        "seed": seed,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def number_types(capability: tuple[int, int]) -> str:
    """Which types a GPU multiplies faster than float32, and where PyTorch takes TF32 in its
    place.
    """
    import torch

    from ....kernels.forms import LEAST_CAPABILITY

    if torch.version.hip:
        return "bf16, no TF32"
    if capability < LEAST_CAPABILITY:
        return "neither bf16 nor TF32: --precision 16-mixed is the fast one"
    products = "off" if torch.get_float32_matmul_precision() == "highest" else "on"
    convolutions = "on" if torch.backends.cudnn.allow_tf32 else "off"
    return f"bf16, TF32 ({products} in matrix products, {convolutions} in convolutions)"


def kernels_run(gpus: int) -> str:
    """Where the operators of `kernels` run, with so many GPUs."""
    import torch

    from ....kernels.forms import too_old, triton_installed

    if not gpus:
        return "plain PyTorch on the CPU"
    if not triton_installed():
        return "plain PyTorch on the GPU: Triton is not installed"
    old = [too_old(torch.device("cuda", index)) for index in range(gpus)]
    where = "Triton on the GPU" if not all(old) else "plain PyTorch on the GPU"
    return "; ".join([where, *filter(None, old)])


def doctor() -> list[str]:
    """Lines that say what is here, what is missing, and what installs it."""
    import torch

    from ....kernels import KERNELS

    rows = [("python", f"{platform.python_version()} on {platform.platform()}")]
    rows += [(name, version(name) or "missing") for name in PACKAGES]
    threads = torch.get_num_threads()
    rows.append(("cpu", f"{os.cpu_count()} cores, torch uses {threads} threads"))
    cuda = torch.cuda.is_available()
    for index in range(torch.cuda.device_count() if cuda else 0):
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        types = number_types((gpu.major, gpu.minor))
        rows.append((f"gpu {index}", f"{gpu.name}, {memory}, sm_{gpu.major}{gpu.minor}, {types}"))
    if not cuda:
        rows.append(("gpu", "none: everything runs on the CPU"))
    rows.append(("kernels", kernels_run(torch.cuda.device_count() if cuda else 0)))
    rows += [("", line) for line in textwrap.wrap(", ".join(KERNELS), 80)]
    for extra, (module, purpose) in OPTIONAL.items():
        missing = f"missing: {purpose}; {install_line(extra)}"
        here = util.find_spec(module) is not None
        rows.append((f"[{extra}]", f"here: {purpose}" if here else missing))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}} {what}" for name, what in rows]
