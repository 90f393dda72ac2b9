"""The Makefile installs with uv, which must look where pip looks; pip does what uv cannot."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / ".make" / "install.py"
SETTINGS = """\
:env:.cert='/certificates.crt'
:env:.find-links='/wheels /more wheels'
:env:.index-url='https://mirror.example/simple'
:env:.disable-pip-version-check='1'
global.index-url='https://other.example/simple'
global.extra-index-url='https://a.example https://b.example'
install.constraint='/limits.txt'
install.index-url='https://third.example/simple'
freeze.timeout='5'
"""


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_of_pip_reach_uv(install: ModuleType):
    settings = install.pip_settings(SETTINGS)
    assert settings["index-url"] == "https://mirror.example/simple"  # that of the environment
    assert "timeout" not in settings  # of another command
    options, variables = install.for_uv(settings)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    # The main index first, as its files go before those of the others.
    assert pairs[:4] == [
        ("--index", "https://mirror.example/simple"),
        ("--index", "https://a.example"),
        ("--default-index", "https://b.example"),
        ("--index-strategy", "unsafe-best-match"),
    ]
    assert sorted(pairs[4:]) == [
        ("--constraints", "/limits.txt"),
        ("--find-links", "/more"),
        ("--find-links", "/wheels"),
        ("--find-links", "wheels"),
    ]
    assert variables == {"SSL_CERT_FILE": "/certificates.crt"}


def test_switches_are_set_only_where_true(install: ModuleType):
    assert install.for_uv({"no-index": "true"})[0] == ["--no-index"]
    assert "--no-index" not in install.for_uv({"no-index": "0"})[0]
    assert "--no-cache" in install.for_uv({"no-cache-dir": "on"})[0]


class Commands:
    """Takes the place of `subprocess.run`: notes each command, and fails those of uv on request."""

    def __init__(self, listing: str, uv_fails: bool = False) -> None:
        self.listing, self.uv_fails = listing, uv_fails
        self.uv: list[list[str]] = []
        self.pip: list[list[str]] = []

    def __call__(
        self, command: list[str], check: bool = False, **options: object
    ) -> subprocess.CompletedProcess[str]:
        if command[2] == "uv":
            self.uv.append(command)
            if self.uv_fails:
                raise subprocess.CalledProcessError(2, command)
        elif "--editable" in command or "-e" in command:
            self.pip.append(command)
        return subprocess.CompletedProcess(command, 0, stdout=self.listing)


def test_uv_installs(install: ModuleType, monkeypatch: pytest.MonkeyPatch):
    commands = Commands(SETTINGS)
    monkeypatch.setattr(subprocess, "run", commands)
    assert install.main(".[dev]") == 0
    assert len(commands.uv) == 1
    assert not commands.pip
    assert commands.uv[0][-2:] == ["--editable", ".[dev]"]
    assert "/wheels" in commands.uv[0]


@pytest.mark.parametrize(
    ("listing", "uv_fails", "reason"),
    [
        ("global.require-hashes='1'", False, "pip's setting require-hashes has no counterpart"),
        ("", True, "uv could not"),
    ],
)
def test_pip_installs_what_uv_cannot(
    listing: str, uv_fails: bool, reason: str, install: ModuleType,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    commands = Commands(listing, uv_fails)
    monkeypatch.setattr(subprocess, "run", commands)
    assert install.main(".[dev]") == 0
    assert len(commands.pip) == 1
    assert commands.pip[0][-2:] == ["-e", ".[dev]"]
    assert reason in capsys.readouterr().err
