"""The processes of Lightning Fabric, without its way of sharing a model."""

from datetime import timedelta

from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

# One process may work for hours while the others wait: it extracts features, or scores the model.
LONGEST_WAIT = timedelta(days=7)


class Processes(DDPStrategy):
    """Fabric's processes and their devices; `sharing.SharedWork` shares the model between them.

    kind: "ddp" or "fsdp".
    """

    def __init__(self, kind: str) -> None:
        super().__init__(timeout=LONGEST_WAIT)
        self.kind = kind

    def setup_module(self, module: nn.Module) -> nn.Module:  # pyright: ignore
        """The module as it is."""
        return module
