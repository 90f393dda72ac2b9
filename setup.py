"""Which folders are packages: every one with an `__init__.py`, so that no list has to be kept by
hand.

The repository root is the package `headwise` itself, so that no bare `models` or `data` is ever
importable."""

from setuptools import find_packages, setup

LIBRARY = ("base", "data", "kernels", "models", "pipelines")

setup(
    packages=[
        "headwise",
        *(f"headwise.{name}" for name in find_packages() if name.split(".")[0] in LIBRARY),
    ],
    package_dir={"headwise": "."},
)
