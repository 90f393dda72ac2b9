"""Index files of a Debian archive, fetched by apt into a folder of their own: the lists, caches and
packages of the system stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ....base.errors import InputError, fail, one_line, reason
from ....base.files import write_text

BY_HAND = (
    "name the files of a mirror with --from Packages.xz Translation-en.xz InRelease (they are in "
    "dists/SUITE/main/binary-amd64, dists/SUITE/main/i18n and dists/SUITE)"
)
PATIENCE = 600  # seconds
VOCABULARY = "usr/share/debtags/vocabulary"
_FORMAT = "$(CREATED_BY)|$(LABEL)|$(CODENAME)|$(COMPONENT)|$(METAKEY)|$(FILENAME)"
# Hooks of the system would clear its caches; without packed files nothing else is needed to read.
_CONFIGURATION = """#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Acquire::GzipIndexes "false";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
APT::Sandbox::User "{user}";
"""


def fetch_lists(folder: Path, languages: Sequence[str]) -> list[Path]:
    """Packages, Translation and InRelease files of the Debian release that the sources of this
    machine name, main only, without updates. folder: an empty one; no quotation mark in its path.

    Raises InputError without apt, without a network, and where no source is Debian's.
    """
    if shutil.which("apt-get") is None:
        raise InputError(f"apt-get: there is none on this machine; {BY_HAND}")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    user = "root" if os.geteuid() == 0 else "_apt"
    write_text(folder / "apt.conf", _CONFIGURATION.format(folder=folder, user=user))
    updated = _apt(folder, languages, "-qq", "update")
    targets = _apt(folder, languages, "indextargets", "--format", _FORMAT)
    files = _files_of_debian(targets.stdout)
    if not files:
        # Of some sources apt may have nothing, which matters only where it was Debian.
        why = _last_line(updated.stderr) or "no source of this machine is a release of Debian"
        raise InputError(f"apt-get update: {why}; check the network, or {BY_HAND}")
    return files


def _files_of_debian(targets: str) -> list[Path]:
    """Out of what apt lists: the files of the suite with the largest file of packages."""
    by_suite: dict[str, list[tuple[str, Path]]] = {}
    for line in targets.splitlines():
        kind, label, suite, component, key, name = (line.split("|", 5) + [""] * 6)[:6]
        wanted = kind in ("Packages", "Translations") and label == "Debian" and component == "main"
        if wanted and Path(name).is_file():
            by_suite.setdefault(suite, []).append((key, Path(name)))
    sizes = {
        suite: max(path.stat().st_size for key, path in files if key.endswith("Packages"))
        for suite, files in by_suite.items()
        if any(key.endswith("Packages") for key, _ in files)
    }
    if not sizes:
        return []
    files = by_suite[max(sizes, key=lambda suite: sizes[suite])]
    paths = [path for _, path in files]
    for key, path in files:
        release = path.name.removesuffix(key.replace("/", "_")) + "InRelease"
        if (path.parent / release).is_file() and path.parent / release not in paths:
            paths.append(path.parent / release)
    return paths


def fetch_vocabulary(folder: Path) -> Path:
    """The file that says what the tags mean, out of the package `debtags`; after `fetch_lists` into
    the same folder.

    Raises InputError where the package or a program that opens it is missing.
    """
    if shutil.which("dpkg-deb") is None:
        raise InputError("dpkg-deb: there is none on this machine")
    _apt(folder, ("en",), "download", "debtags", cwd=folder)
    packages = sorted(folder.glob("debtags_*.deb"))
    if not packages:
        raise InputError("debtags: the archive of this machine does not hold the package")
    command = ["dpkg-deb", "-x", str(packages[0]), str(folder / "debtags")]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        raise fail(packages[0].name, f"cannot be opened ({reason(error)})") from error
    return folder / "debtags" / VOCABULARY


def _apt(
    folder: Path, languages: Sequence[str], *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    # A configuration of the system that asks for no language yields to the command line only.
    settings = ("-c", str(folder / "apt.conf"), "-o", f"Acquire::Languages={','.join(languages)}")
    try:
        return subprocess.run(
            ["apt-get", *settings, *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"apt-get {words[-1]}: {reason(error)}; {BY_HAND}") from error


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("E:", "W:"))]
    return one_line(lines[-1]) if lines else ""
