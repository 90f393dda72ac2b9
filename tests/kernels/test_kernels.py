"""The list of operators."""

import subprocess
import sys
from importlib import import_module

from headwise.kernels import KERNELS


def test_lists_load_without_torch_and_name_functions() -> None:
    code = (
        "import sys, headwise.kernels as k, headwise.models as m, headwise.models.attention as a;"
        "assert k.KERNELS and a.ATTENTION; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, kernel in KERNELS.items():
        assert callable(getattr(import_module(f"headwise.kernels.{kernel.module}"), name))
