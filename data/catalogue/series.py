"""Time series of the forecasting papers."""

from .dataset import Dataset

_ETT = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/"
    "1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/"
)
_LSTNET = (
    "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/"
    "7f402f185cc2435b5e66aed13a3b560ed142e023/"
)
_WEATHER = (
    "https://raw.githubusercontent.com/ljnvs/HiCR-Mamba/"
    "d472c100956ed4373e9ca3700481ce88f8f1e4dd/datasets/weather/"
)
_AUTOFORMER = (
    "https://raw.githubusercontent.com/junwoopark92/Self-Supervised-Contrastive-Forecsating/"
    "f394705adbf5217811276f5e59576c6e7ea7586c/dataset/"
)
_INFORMER = (
    "Zhou et al., Informer: beyond efficient transformer for long sequence time-series "
    "forecasting, AAAI 2021"
)
_AUTO = (
    "Wu et al., Autoformer: decomposition transformers with auto-correlation, NeurIPS 2021 (this "
    "selection)"
)
_LAI = (
    "Lai et al., Modeling long- and short-term temporal patterns with deep neural networks, SIGIR"
    " 2018"
)
_ETT_LICENCE = "CC BY-ND 4.0 (verbatim copies only)"
_NO_LICENCE = "none stated by the repository"

SERIES = (
    Dataset(
        name="ETTh1",
        task="forecast",
        what="transformer oil temperature and load, 17,420 x 7, hourly, 2016-07 to 2018-06",
        url=f"{_ETT}ETTh1.csv",
        file="ETTh1.csv",
        sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        git_blob="a52c4925778c07c1ef1a2cf6fd01594919717d9e",
        licence=_ETT_LICENCE,
        citation=_INFORMER,
    ),
    Dataset(
        name="ETTh2",
        task="forecast",
        what="the same at a second station, 17,420 x 7, hourly",
        url=f"{_ETT}ETTh2.csv",
        file="ETTh2.csv",
        sha256="a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
        git_blob="6e3760778598fdee5208213d3fce122637307eec",
        licence=_ETT_LICENCE,
        citation=_INFORMER,
    ),
    Dataset(
        name="ETTm1",
        task="forecast",
        what="the first station every 15 minutes, 69,680 x 7",
        url=f"{_ETT}ETTm1.csv",
        file="ETTm1.csv",
        sha256="6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
        git_blob="62c9f979e2dc5b05d9cc5b38891e60e6baf77417",
        licence=_ETT_LICENCE,
        citation=_INFORMER,
    ),
    Dataset(
        name="ETTm2",
        task="forecast",
        what="the second station every 15 minutes, 69,680 x 7",
        url=f"{_ETT}ETTm2.csv",
        file="ETTm2.csv",
        sha256="db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
        git_blob="f9d46027c987d442d2d8f81308d1d8c4d1d35db8",
        licence=_ETT_LICENCE,
        citation=_INFORMER,
    ),
    Dataset(
        name="Weather",
        task="forecast",
        what=(
            "weather station in Jena, 52,696 x 21, every 10 minutes, 2020; one timestamp twice, "
            "nine missing, -9999 values"
        ),
        url=f"{_WEATHER}weather.csv.gz",
        file="weather.csv.gz",
        sha256="862e9b447a3933f14b6f2d3d686a35d3adb5a486f97acfa46869be0e4bb682db",
        git_blob="6289ee2a113828e9d471fc411c12d67e7d698542",
        licence=(
            "Max Planck Institute for Biogeochemistry, Jena; no licence for the data stated by "
            "the repository"
        ),
        citation=_AUTO,
        read_with="--fill as-is",
    ),
    Dataset(
        name="Exchange",
        task="forecast",
        what=(
            "exchange rates of eight countries, 7,588 x 8, daily; the last two columns are "
            "swapped against ExchangeLSTNet"
        ),
        url=f"{_AUTOFORMER}exchange_rate/exchange_rate.csv",
        file="exchange_rate.csv",
        sha256="d55e7aa2641009814a18ba3279431b13f6d413b0eab195b9ff21988d8cf94e97",
        git_blob="6b04ff3158cd1e3b27b708eff0b75e14aaa400fb",
        licence="repository MIT; none stated for the data",
        citation=_LAI,
    ),
    Dataset(
        name="ILI",
        task="forecast",
        what="influenza-like illness in the United States (CDC), 966 x 7, weekly, 2002 to 2020",
        url=f"{_AUTOFORMER}illness/national_illness.csv",
        file="national_illness.csv",
        sha256="8594cecb98c6f2f9dc014eca11c4d5d1e38ad5ce6ed0592d4abe65b146fce395",
        git_blob="ae0424af871366ecacc501399fcb730e9200458c",
        licence="repository MIT; data of the CDC, a United States agency",
        citation=_AUTO,
    ),
    Dataset(
        name="ExchangeLSTNet",
        task="forecast",
        what="exchange rates of eight countries, 7,588 x 8, daily, no header and no dates",
        url=f"{_LSTNET}exchange_rate/exchange_rate.txt.gz",
        file="exchange_rate.txt.gz",
        sha256="6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d",
        git_blob="d72d0d7a5d5d06ecd1cf4c79396180b2962be101",
        licence=_NO_LICENCE,
        citation=_LAI,
        read_with="--frequency 1d",
    ),
    Dataset(
        name="Solar",
        task="forecast",
        what="137 solar plants in Alabama, every 10 minutes, 2006, no header and no dates",
        url=f"{_LSTNET}solar-energy/solar_AL.txt.gz",
        file="solar_AL.txt.gz",
        sha256=None,
        git_blob="08a1f235546b3708309ff4fb544a54bb82e4f5e7",
        licence=_NO_LICENCE,
        citation=_LAI,
        read_with="--frequency 10m",
    ),
    Dataset(
        name="Electricity",
        task="forecast",
        what="electricity consumption of 321 clients, hourly, 2012 to 2014, no header and no dates",
        url=f"{_LSTNET}electricity/electricity.txt.gz",
        file="electricity.txt.gz",
        sha256=None,
        git_blob="df158a9fff65428ece107200432a72c992d5e4e9",
        licence=_NO_LICENCE,
        citation=_LAI,
        read_with="--frequency 1h",
    ),
    Dataset(
        name="Traffic",
        task="forecast",
        what=(
            "occupancy of San Francisco Bay Area freeways by sensor, hourly, 2015 to 2016, no "
            "header and no dates"
        ),
        url=f"{_LSTNET}traffic/traffic.txt.gz",
        file="traffic.txt.gz",
        sha256=None,
        git_blob="63ddb74bf7602568f36056a0b1a47aa407f0a6fe",
        licence=_NO_LICENCE,
        citation=_LAI,
        read_with="--frequency 1h",
    ),
)
