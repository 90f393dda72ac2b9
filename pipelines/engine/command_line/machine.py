"""What this machine and this installation are: `environment.json` of a run and `headwise
doctor`.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "lightning-fabric", "numpy", "polars", "scikit-learn", "safetensors")
# optional part -> (module that shows it is there, what it is for)
OPTIONAL = {
    "vision": ("timm", "image pipelines"),
    "wsi": ("openslide", "whole-slide images"),
    "medical": ("pydicom", "DICOM radiographs"),
    "speech": ("soundfile", "speech to text"),
    "openmmlab": ("mmseg", "mmsegmentation and mmdetection adapters"),
    "onnx": ("onnxruntime", "export as ONNX (export --output model.onnx)"),
    "ray": ("ray", "batch inference over a cluster (--engine ray)"),
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


def environment(task: str, seed: int, device: str, world: int) -> dict[str, Any]:
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

    lines = [f"python      {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name:<11} {version(name) or 'missing'}" for name in PACKAGES]
    lines.append(
        f"cpu         {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            lines.append(
                f"gpu {index}       {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, sm_{gpu.major}{gpu.minor}"
            )
    else:
        lines.append("gpu         none: everything runs on the CPU")
    ready = torch.cuda.is_available() and version("triton") is not None
    lines.append(
        f"kernels     {', '.join(KERNELS)}: {'Triton on the GPU' if ready else 'plain PyTorch on the CPU'}"
    )
    for extra, (module, purpose) in OPTIONAL.items():
        here = util.find_spec(module) is not None
        lines.append(
            f"[{extra}]".ljust(12)
            + (
                f"here: {purpose}"
                if here
                else f"missing: {purpose}; pip install 'headwise[{extra}]'"
            )
        )
    return lines
