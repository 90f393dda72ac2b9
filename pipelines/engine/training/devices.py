"""Lightning Fabric as the options ask for it: devices, precision and processes."""

from __future__ import annotations

import os
import warnings

import torch
from lightning_fabric import Fabric

from ....base.errors import InputError, one_line
from ..options import TrainOptions


def open_fabric(options: TrainOptions) -> Fabric:
    """The devices of a training; `InputError` where they cannot be used here."""
    devices, nodes = options.devices, options.nodes
    if "LOCAL_WORLD_SIZE" in os.environ and devices == 1:
        # Started by torchrun, which has counted already.
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    strategy = options.strategy
    if strategy == "auto" and devices * nodes > 1:
        strategy = "ddp"
    try:
        with warnings.catch_warnings():
            # Fabric's hints about settings that are chosen here on purpose.
            warnings.simplefilter("ignore")
            return Fabric(
                accelerator=options.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=strategy,
                precision=options.precision,
            )
    except (ValueError, RuntimeError) as error:
        asked = (
            f"--accelerator {options.accelerator}, --devices {devices}, "
            f"--precision {options.precision}"
        )
        raise InputError(f"{asked}: cannot be used here ({one_line(error)})") from error


def one_device(device: torch.device) -> Fabric:
    """One device and 32 bits, whatever the environment says of other processes."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fabric(accelerator=device.type, devices=1, plugins=[LightningEnvironment()])
