"""What building the model of a run may take: a run is a folder that may come from anywhere.

Its options and its spec say how large the model is, and its weights how large it can be: building
stops where the model outgrows them. No network is needed for a finished run, so none is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ....base.errors import InputError, reason

# Models make some parameters that they drop again, such as the classifier of a backbone.
_SLACK, _TENSORS, _NUMBERS = 4, 1_000, 10_000_000
_beside: ContextVar[bool] = ContextVar("beside", default=False)
_OFFLINE = "HF_HUB_OFFLINE"  # what the hub's client asks before each request


@contextmanager
def build_within(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Build the model of a run in this context; it has `weights`, from the file `path`.

    Raises `InputError` for a model that outgrows the weights, and for whatever else the options and
    the spec of the run make impossible.
    """
    most_tensors = _SLACK * len(weights) + _TENSORS
    most_numbers = _SLACK * sum(value.numel() for value in weights.values()) + _NUMBERS
    tensors = numbers = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, numbers
        if _beside.get() or parameter is None or isinstance(parameter, nn.UninitializedParameter):
            return
        tensors, numbers = tensors + 1, numbers + parameter.numel()
        if tensors > most_tensors or numbers > most_numbers:
            raise InputError(
                f"{path}: weights of another model: that of config.yaml and spec.json is larger"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        with _hub_offline():
            yield
    except InputError:
        raise
    except Exception as error:
        # Nothing here depends on the user's data: the files of the run do not fit together.
        where = f"{path.parent}: no model can be made of its config.yaml and spec.json"
        raise InputError(f"{where} ({type(error).__name__}: {reason(error)})") from None
    finally:
        hook.remove()


@contextmanager
def beside_the_run() -> Iterator[None]:
    """What is built in this context is no part of a run: a model that the run was made for, which
    is known by its checksum.
    """
    token = _beside.set(True)
    try:
        yield
    finally:
        _beside.reset(token)


@contextmanager
def _hub_offline() -> Iterator[None]:
    """No request to the Hugging Face hub; files that were fetched before are used."""
    try:
        import huggingface_hub.constants as constants
    except ImportError:
        yield
        return
    before = getattr(constants, _OFFLINE)
    setattr(constants, _OFFLINE, True)
    try:
        yield
    finally:
        setattr(constants, _OFFLINE, before)
