"""Install this package with one of its extras, for the Makefile: `install.py '.[dev]'`.

pip unpacks one file after another, which for torch takes minutes; uv does the same in a fifth of
the time, but does not know pip's settings (another index, a proxy's certificate). They are handed
over here. pip itself installs where uv cannot be had, where a setting has no counterpart, and where
uv fails."""

import ast
import os
import subprocess
import sys

PIP = [sys.executable, "-m", "pip"]
PYPI = "https://pypi.org/simple"
QUIETLY = ["--quiet", "--disable-pip-version-check"]
# One value each, or several with blanks between them.
OPTIONS = {
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
}
VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
HANDLED = {"index-url", "extra-index-url", "no-index", "no-cache-dir"}  # by `for_uv`
# These have no say in what is installed, or from where.
NO_MATTER = {
    "break-system-packages", "cache-dir", "compile", "debug", "disable-pip-version-check",
    "format", "log", "no-color", "no-compile", "no-input", "no-warn-conflicts",
    "no-warn-script-location", "progress-bar", "quiet", "require-virtualenv", "require-venv",
    "root-user-action", "user", "verbose",
}  # fmt: skip


def pip_settings(listing: str) -> dict[str, str]:
    """The settings in the output of `pip config list`: lines such as `global.index-url='https://…'`.
    Those of the environment go before those of `pip install`, which go before the global ones."""
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # a later one goes before an earlier one
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            of_section, _, key = name.rpartition(".")
            if of_section == section:
                settings[key] = str(ast.literal_eval(value))
    return settings


def is_on(value: str) -> bool:
    """Whether a switch of pip is set."""
    return value.lower() in ("1", "true", "yes", "on")


def for_uv(settings: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The options and the environment variables that say to uv what `settings` say to pip.
    Raises `LookupError` for a setting that has no counterpart."""
    # pip takes the best file of all its indexes, uv by itself those of the first that knows the
    # package, and of one version still those of one index: the main one goes first.
    *others, last = settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()
    options = [word for index in others for word in ("--index", index)]
    options += ["--default-index", last, "--index-strategy", "unsafe-best-match"]
    if is_on(settings.get("no-index", "")):
        options = ["--no-index"]
    if is_on(settings.get("no-cache-dir", "")):
        options.append("--no-cache")
    variables: dict[str, str] = {}
    for key, value in settings.items():
        if key in OPTIONS:
            options += [word for part in value.split() for word in (OPTIONS[key], part)]
        elif key in VARIABLES:
            variables[VARIABLES[key]] = value
        elif key not in NO_MATTER | HANDLED:
            raise LookupError(f"pip's setting {key} has no counterpart in uv")
    return options, variables


def install_with_uv(package: str) -> None:
    """Raises `LookupError` or `subprocess.CalledProcessError` where uv cannot do it."""
    listing = subprocess.run([*PIP, "config", "list"], check=True, capture_output=True, text=True)
    options, variables = for_uv(pip_settings(listing.stdout))
    get_uv = [*PIP, "install", *QUIETLY, "--only-binary", "uv", "-c", "constraints.txt", "uv"]
    subprocess.run(get_uv, check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    command = [*uv, *options, "--constraints", "constraints.txt", "--editable", package]
    subprocess.run(command, check=True, env={**variables, **os.environ})


def install_with_pip(package: str) -> int:
    """pip's exit code."""
    options = [*QUIETLY, "--no-compile", "-c", "constraints.txt", "-e", package]
    return subprocess.run([*PIP, "install", *options]).returncode


def main(package: str) -> int:
    try:
        install_with_uv(package)
    except LookupError as error:
        reason = str(error)
    except subprocess.CalledProcessError:
        reason = "uv could not, for the reason above"
    else:
        return 0
    print(f"{reason}: pip installs, which takes a few minutes", file=sys.stderr)
    return install_with_pip(package)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
