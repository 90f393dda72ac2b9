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
        rows.append((f"gpu {index}", f"{gpu.name}, {memory}, sm_{gpu.major}{gpu.minor}"))
    if not cuda:
        rows.append(("gpu", "none: everything runs on the CPU"))
    ready = cuda and version("triton") is not None
    rows.append(("kernels", "Triton on the GPU" if ready else "plain PyTorch on the CPU"))
    rows += [("", line) for line in textwrap.wrap(", ".join(KERNELS), 80)]
    for extra, (module, purpose) in OPTIONAL.items():
        missing = f"missing: {purpose}; {install_line(extra)}"
        here = util.find_spec(module) is not None
        rows.append((f"[{extra}]", f"here: {purpose}" if here else missing))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}} {what}" for name, what in rows]
