"""How the Triton forms launch their kernels, seen without a GPU: launches are recorded, not run."""

from importlib.util import find_spec

import pytest

from headwise.tests.kernels import compiling

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is optional and not installed"
)


@pytest.mark.parametrize("operator", compiling.operators())
def test_no_form_asks_for_a_value_and_every_grid_can_be_launched(operator: str) -> None:
    # The tensors have no values: asking for one, as `.item()` and `.tolist()` do, raises.
    from headwise.kernels.launching import MOST_PROGRAMS

    for name, launch in compiling.launches(operator):
        assert all(0 < a <= most for a, most in zip(launch.grid, MOST_PROGRAMS)), (name, launch)


def test_a_grid_that_no_gpu_can_launch_is_refused() -> None:
    from headwise.kernels.launching import launch

    class Kernel:
        __name__ = "long_kernel"

        def __getitem__(self, grid: tuple[int, ...]):
            return lambda: None

    launch(Kernel(), (2**31 - 1, 2**16 - 1))
    with pytest.raises(ValueError, match=r"long_kernel: a grid of \(1, 65536\) .* split the batch"):
        launch(Kernel(), (1, 2**16))
