"""Generated recordings and a small model of them, made once for the tests of speech."""

import pytest


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    from headwise.data.speech.generate import write_sample_speech

    return write_sample_speech(tmp_path_factory.mktemp("speech"), strings=24)


@pytest.fixture(scope="session")
def run(home, tmp_path_factory):
    from headwise import pipelines

    path = tmp_path_factory.mktemp("run") / "run"
    pipelines.speech.train(
        run=path,
        data=str(home),
        epochs=3,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=2,
        seed=3,
        choose="model",
    )
    return path
