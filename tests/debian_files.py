"""A tiny Debian archive: index files with packages that do not exist."""

import hashlib
from pathlib import Path

RELEASE = (
    "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nSuite: testing\n"
    "Codename: nowhere\nVersion: 99.1\nDate: Sat, 01 Jan 2028 00:00:00 UTC\n"
    "-----BEGIN PGP SIGNATURE-----\nVersion: GnuPG v1\n"
)


def key_of(name: str) -> str:
    return hashlib.md5(name.encode()).hexdigest()


def packages_text(blocks: list[dict[str, str]]) -> str:
    """A Packages file; each block has at least a Package."""
    texts = []
    for block in blocks:
        fields = {"Description-md5": key_of(block["Package"]), "Section": "utils", **block}
        texts.append("\n".join(f"{name}: {value}" for name, value in fields.items()))
    return "\n\n".join(texts) + "\n"


def translation_text(language: str, texts: dict[str, str]) -> str:
    """A Translation file: of each package its description, with lines as they are in the file."""
    blocks = [
        f"Package: {name}\nDescription-md5: {key_of(name)}\nDescription-{language}: {text}"
        for name, text in texts.items()
    ]
    return "\n\n".join(blocks) + "\n"


BLOCKS = [
    {
        "Package": "loom",
        "Tag": "role::program, use::weaving,\n interface::TODO, use::TODO, role::program",
        "Installed-Size": "120",
        "Size": "4096",
        "Priority": "optional",
        "Architecture": "amd64",
        "Depends": "libthread1 (>= 1.0), a-shell | b-shell:any",
        "Recommends": "yarn",
        "Suggests": "nowhere-to-find",
    },
    {
        "Package": "loom-doc",
        "Source": "loom (1.2-1)",
        "Tag": "role::documentation",
        "Suggests": "loom",
    },
    {"Package": "libthread1", "Source": "thread", "Section": "libs", "Depends": "loom-doc"},
    {"Package": "yarn", "Tag": "role::program", "Section": "contrib/misc", "Installed-Size": "x"},
    {"Package": "yarn", "Tag": "use::weaving", "Pre-Depends": "libthread1"},
    {"Package": "b-shell", "Source": "shells", "Tag": "use::TODO"},
]
ENGLISH = {
    "loom": "weaves cloth\n The loom weaves\n what it is given.\n .\n  * warp\n  * weft\n Slowly.",
    "loom-doc": "weaves cloth (manual)\n How to weave.",
    "libthread1": "threads\n Threads of all colours, in a rather long text.",
    "yarn": "spins\n It spins.",
    "b-shell": "a shell",
}
ITALIAN = {"loom": "tesse stoffa\n Il telaio tesse."}


def write_archive(folder: Path) -> list[Path]:
    """The files of the archive, in an order in which nobody needs to name them."""
    files = {
        "InRelease": RELEASE,
        "Translation-en": translation_text("en", ENGLISH),
        "Packages": packages_text(BLOCKS),
        "Translation-it": translation_text("it", ITALIAN),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]
