"""Options of speech to text."""

from dataclasses import dataclass
from typing import Literal

from ..engine.options import PredictOptions, TrainOptions

Format = Literal["json", "srt", "vtt", "tsv", "ctm", "TextGrid", "txt"]
Times = Literal["pauses", "dtw", "area"]


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(TrainOptions):
    """Train speech to text on recordings with transcripts; word times come out of its
    cross-attention.
    """

    data: str | None = None
    """Folder of recordings with text beside them (.txt, .lab, .TextGrid), or a manifest (.jsonl,
    .csv) with audio, text and perhaps start, end, speaker, part, words."""
    weights: str | None = None
    """Begin with weights of Whisper: a folder of CTranslate2 or Hugging Face, a .pt of OpenAI, or
    whisper-tiny-en; sizes and tokens are then theirs."""
    tokenizer: str | None = None
    """Tokens of the weights, where none lie beside them: tokenizer.json, or a .tiktoken file."""
    language: str | None = None
    """Language, for weights that know many (default: en)."""
    tokens: Literal["characters", "bpe"] = "characters"
    """Tokens of a model from scratch: characters, or byte pairs."""
    vocabulary: int = 512
    """Byte pairs at most."""
    features: int = 80
    """Mel bands."""
    width: int = 96
    """Width of the model, even."""
    heads: int = 4
    """Heads of attention."""
    encoder_layers: int = 3
    """Layers of the encoder."""
    decoder_layers: int = 2
    """Layers of the decoder."""
    hidden: int | None = None
    """Width inside the feed-forward networks (default: four times the width)."""
    audio_positions: int = 1500
    """Longest recording, in states of 20 ms; longer ones are cut in pauses when predicting, left
    out in training.
    """
    text_positions: int = 448
    """Most tokens of a transcript, with those that begin and end it."""
    encoder: Literal["transformer", "conformer"] = "transformer"
    """Layers of the encoder: Whisper's, or Conformer's, with a convolution each."""
    kernel: int = 15
    """Width of the Conformer's convolution, odd."""
    encoder_attention: str = "softmax"
    """Mechanism of the core in the encoder (`headwise list attention`)."""
    decoder_attention: str = "softmax"
    """Mechanism of the core among the tokens; it must have a causal form."""
    cross_attention: str = "softmax"
    """Mechanism of the core from tokens to states; word times and maps need one with weights."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward networks of both sides: plain, gated, or a mixture of experts."""
    experts: int = 4
    """Experts of each mixture."""
    active: int = 2
    """Experts that a token uses."""
    balance: float = 0.01
    """Weight of the load balance loss of the experts."""
    dropout: float = 0.1
    """Dropout in all layers."""
    ctc: float = 0.3
    """Weight of connectionist temporal classification on the encoder beside the decoder's loss; 0:
    none.
    """
    smoothing: float = 0.1
    """Label smoothing of the decoder's loss."""
    mask_time: int = 2
    """Stretches of time that are blanked in training, up to 200 ms each."""
    mask_bands: int = 2
    """Groups of mel bands that are blanked in training, up to 12 each."""
    warp_bands: float = 0.0
    """Change all frequencies of a recording in training by a factor of up to 1 -+ this, as another
    speaker would; .1 to .2 helps where there are few speakers."""
    split_by: Literal["speaker", "recording"] = "speaker"
    """What the shares below are drawn among: speakers, where four or more are named, or
    recordings.
    """
    validation_share: float = 0.1
    """Share of the training speakers (or recordings) that choose the epoch, where the data names no
    part.
    """
    test_share: float = 0.15
    """Share that is kept for the test, where the data names no part."""
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
    """Transcribe recordings: parquet with words and their times, and other formats in
    OUTPUT.texts/.
    """

    input: str
    """Recording, folder of them at any depth, or manifest."""
    formats: tuple[Format, ...] = ()
    """Also write each transcript as json, srt, vtt, tsv, ctm, TextGrid, txt; several at once."""
    times: Times = "pauses"
    """Word times from cross-attention: pauses belong to no word (pauses), Whisper's time warping
    (dtw), or splitting by area (area)."""
    known_text: bool = False
    """Align the text that the input brings (beside recordings or in the manifest) instead of
    transcribing.
    """
    maps: bool = False
    """Write the cross-attention of each layer, OUTPUT.maps/NAME.npz."""
    beams: int = 1
    """Transcripts that are kept while searching; 1 is greedy."""
    shard_size: int = 32
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 8
    """Windows of up to 30 seconds per forward pass; the words do not depend on it."""


@dataclass(frozen=True, kw_only=True)
class AdoptOptions:
    """Make a run of Whisper's weights, without any training: for predict and evaluate."""

    weights: str = "whisper-tiny-en"
    """Folder of CTranslate2 or Hugging Face, a .pt of OpenAI, or whisper-tiny-en (fetched once, as
    by `data get`).
    """
    run: str
    """Run directory to create."""
    tokenizer: str | None = None
    """Tokens of the weights, where none lie beside them: tokenizer.json, or a .tiktoken file."""
    language: str | None = None
    """Language, for weights that know many (default: en)."""


@dataclass(frozen=True, kw_only=True)
class DigitsOptions:
    """Strings of recorded digits with exact word times, from the recordings of the Free Spoken
    Digit Dataset.
    """

    recordings: str
    """Its folder of recordings, {digit}_{speaker}_{take}.wav."""
    output: str
    """Folder to write: recordings and manifest.jsonl."""
    strings: int = 30
    """How many."""
    speakers: tuple[str, ...] = ()
    """Speakers to use (default: all)."""
    validation: tuple[str, ...] = ()
    """Speakers of the validation part."""
    test: tuple[str, ...] = ()
    """Speakers of the test part; where any are named, the others train."""
    least: int = 4
    """Fewest digits of a string."""
    most: int = 9
    """Most digits of a string."""
    shortest_pause: float = 0.05
    """Shortest pause between digits, seconds."""
    longest_pause: float = 0.5
    """Longest pause between digits, seconds."""
    seed: int = 0
    """Of every draw."""


@dataclass(frozen=True, kw_only=True)
class SaliencyOptions:
    """What `explain` and `compare` share."""

    run: str
    """Finished run whose model is asked."""
    output: str
    """Folder to write; given again, the recordings that are in it already are not done again."""
    masks: int = 1000
    """Masks of the encoder's states; the decoder alone runs for each. 0: none."""
    input_masks: int = 500
    """Masks of the spectrogram; encoder and decoder run for each. 0: none."""
    chunk: int = 5
    """States of 20 ms that are hidden together."""
    segments: tuple[int, ...] = (100, 200, 400)
    """Segments of a spectrogram of 5 s (SLIC); the masks are shared out among these sizes."""
    hidden: float = 0.5
    """Chance of a stretch or segment to be hidden."""
    gradients: bool = True
    """Gradient x input, too."""
    margin: float = 5.0
    """Seconds of silence behind a recording under masks, in place of the rest of Whisper's 30 s
    window, which takes longer; 30 keeps it whole. Models from scratch have no such window."""
    batch_size: int = 25
    """Masks per forward pass."""
    seed: int = 0
    """Of every draw."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(SaliencyOptions):
    """What the model used for each token: maps, a picture a recording, and how far its word times
    can be trusted.
    """

    input: str
    """Recording, folder of them, or manifest; up to the model's window (30 s) each."""
    known_text: bool = False
    """Explain the text that the input brings instead of a transcript."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(SaliencyOptions):
    """Cross-attention beside saliency over a set of recordings: tables with intervals;
    resumable.
    """

    data: str
    """Recordings: folder or manifest; known `words` in it show whether the warnings about word
    times are worth anything."""
    deletion: bool = True
    """Also blank the most important parts step by step and transcribe again."""
