"""Lightning Fabric as the options ask for it: devices, precision and processes.

Fabric is imported where it is used: it brings torch's compiler with it, which takes as long as
torch itself and which a prediction does not need."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import torch

from ....base.errors import InputError, one_line
from ..options import TrainOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def open_fabric(options: TrainOptions) -> Fabric:
    """The devices of a training; `InputError` where they cannot be used here."""
    from lightning_fabric import Fabric

    from .processes import Processes

    devices, nodes = options.devices, options.nodes
    if "LOCAL_WORLD_SIZE" in os.environ and devices == 1:
        # Started by torchrun, which has counted already.
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    strategy = options.strategy
    if strategy == "auto" and devices * nodes > 1:
        strategy = "ddp"
    if strategy == "fsdp" and options.precision == "16-mixed":
        raise InputError("--strategy fsdp: goes with --precision bf16-mixed, not with 16-mixed")
    try:
        with warnings.catch_warnings():
            # Fabric's hints about settings that are chosen here on purpose.
            warnings.simplefilter("ignore")
            return Fabric(
                accelerator=options.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy="auto" if strategy == "auto" else Processes(strategy),
                precision=options.precision,
            )
    except (ValueError, RuntimeError) as error:
        asked = (
            f"--accelerator {options.accelerator}, --devices {devices}, "
            f"--precision {options.precision}"
        )
        raise InputError(f"{asked}: cannot be used here ({one_line(error)})") from error


def sharing_of(fabric: Fabric) -> str:
    """How the processes of `open_fabric` share a model: "ddp" or "fsdp"; "none" for one process."""
    from .processes import Processes

    return fabric.strategy.kind if isinstance(fabric.strategy, Processes) else "none"


def one_device(device: torch.device) -> Fabric:
    """One device and 32 bits, whatever the environment says of other processes."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fabric(accelerator=device.type, devices=1, plugins=[LightningEnvironment()])
