"""Encoders of tiles: any model of timm, with its own normalisation, or random filters that need no
weights.

Shapes: n tiles, T pixels of a side, D width of a feature.
"""

import difflib
import hashlib
import math
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.extras import install_line
from ..weights.adopted import BackboneFacts, backbone_facts

RANDOM_FILTERS = "random-filters"
HUB = "hf-hub:"  # begins the names of encoders in repositories of anybody
Size = tuple[int, int]
_SECONDS = 5  # that the hub has to answer
_OFFLINE = "--weights FILE, --weights random and --encoder random-filters need no network"


class RandomFilters(nn.Module):
    """Mean and deviation of the responses of random filters at two scales, and of the colours: a
    texture descriptor without training (random filters for texture: Varma and Zisserman, TPAMI
    2005, section 4, and Saxe et al. 2011).

    It is a stand-in that needs no weights, for samples and tests; it knows nothing of tissue. Width
    102."""

    num_features = 102
    weight: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn((24, 3, 7, 7), generator=torch.Generator().manual_seed(seed))
        weight -= weight.mean((2, 3), keepdim=True)
        self.register_buffer("weight", weight / weight.flatten(1).norm(dim=1)[:, None, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, T, T) -> (n, 102)."""
        maps = [x.flatten(2)]
        for factor in (1, 2):
            small = F.avg_pool2d(x, 2 * factor) if min(x.shape[2:]) >= 14 * factor else x
            maps.append(F.conv2d(small, self.weight, padding=3).abs().flatten(2))
        return torch.cat([torch.cat([y.mean(2), y.std(2)], 1) for y in maps], 1)


class TileEncoder(nn.Module):
    """A model with what it expects of a picture.

    size: height and width that tiles are resized to, pixels, None for any; side: the same of a
    square; mean and deviation: of the three colours, 0 to 1; name: what `build_encoder` calls it.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        model: nn.Module,
        width: int,
        *,
        side: int | None = None,
        size: Size | None = None,
        mean: tuple[float, ...],
        deviation: tuple[float, ...],
        name: str = "",
    ) -> None:
        super().__init__()
        self.model, self.width, self.name = model, width, name
        self.size: Size | None = (side, side) if side is not None else size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1))

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8 (n, T, T, 3) -> (n, D)."""
        return self.features(tiles.permute(0, 3, 1, 2).float() / 255)

    @property
    def side(self) -> int | None:
        """Pixels of a side that tiles are resized to."""
        return None if self.size is None else self.size[0]

    def features(self, pictures: Tensor) -> Tensor:
        """Floats (n, 1 or 3, Y, X) in [0, 1] -> (n, D); grey counts as three equal colours."""
        return self.model(self._prepared(pictures))

    def patches(self, pictures: Tensor) -> Tensor:
        """The same pictures -> a feature of each patch (n, D, y, x), of the last block.

        Raises ValueError for a model that is no vision transformer of timm.
        """
        grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if grid is None:
            raise ValueError(f"encoder {self.name!r}: has no patches")
        tokens = self.model.forward_features(self._prepared(pictures))  # pyright: ignore
        first: int = self.model.num_prefix_tokens  # pyright: ignore[reportAssignmentType]
        return tokens[:, first:].transpose(1, 2).unflatten(2, (grid[0], grid[1]))

    def _prepared(self, pictures: Tensor) -> Tensor:
        x = pictures.expand(-1, 3, -1, -1)
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return (x - self.mean) / self.deviation

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that any change of a weight changes."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(
                value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
        return digest.hexdigest()[:16]


def build_encoder(name: str, weights: str = "pretrained", size: Size | None = None) -> TileEncoder:
    """An encoder in evaluation mode.

    name: "random-filters" or a model of timm, also "hf-hub:OWNER/NAME"; weights: "pretrained" (timm
    fetches them once), "random" (always the same ones), or the path of a file, safetensors or a
    state dict that torch reads without unpickling code; what a file says of the pictures that it
    expects counts more than what timm says. size: height and width in pixels that pictures are
    resized to; without it a transformer with a fixed grid has the size it was trained with, and
    others take any.

    Raises ValueError for an unknown name, for a size that is no multiple of a transformer's patch,
    and for weights that are missing, cannot be fetched, or do not fit."""
    if name == RANDOM_FILTERS:
        model = RandomFilters()
        mean, deviation, width = (0.5,) * 3, (0.25,) * 3, model.num_features
        return TileEncoder(
            model, width, size=size, mean=mean, deviation=deviation, name=name
        ).eval()
    try:
        import timm
        from timm.data import resolve_model_data_config  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        raise ValueError(f"encoders need timm; {install_line('wsi')}") from None
    if not name.startswith(HUB) and not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0][:8]}*")[:5]
        raise ValueError(
            f"encoder {name!r} is unknown to timm"
            + (f"; near it: {', '.join(close)}" if close else "")
            + "; encoders of the hub are named hf-hub:OWNER/NAME"
        )
    if weights in ("pretrained", "random"):
        facts, file = None, _file_without_network(name) if weights == "pretrained" else None
    else:
        facts, file = backbone_facts(weights), None
    options: dict[str, object] = {} if file is None else {"pretrained_cfg_overlay": {"file": file}}
    model = _timm_encoder(name, weights == "pretrained", size, facts, options)
    if weights not in ("pretrained", "random"):
        _load(model, Path(weights))
    config = resolve_model_data_config(model)
    patches = getattr(model, "patch_embed", None)
    grid: tuple[int, int] | None = getattr(patches, "img_size", None)
    if grid is not None and size is not None:
        _check_grid(name, size, patches)
    return TileEncoder(
        model,
        int(model.num_features),  # pyright: ignore[reportArgumentType]
        size=size if grid is None else (grid[0], grid[1]),
        mean=config["mean"] if facts is None else facts.mean,
        deviation=config["std"] if facts is None else facts.deviation,
        name=name,
    ).eval()


def _check_grid(name: str, size: Size, patches: object) -> None:
    """Raise ValueError for a size of which a transformer's patches would leave a rim unread."""
    sides: tuple[int, int] = getattr(patches, "patch_size", (1, 1))
    for length, patch in zip(size, sides, strict=True):
        if length % patch:
            below = length // patch * patch
            raise ValueError(
                f"encoder {name!r}: its pictures are cut into patches of {patch} pixels, and "
                f"{length} is no multiple; take {max(below, patch)} or {below + patch}"
            )


def _timm_encoder(
    name: str,
    pretrained: bool,
    size: Size | None,
    facts: BackboneFacts | None,
    options: dict[str, object],
) -> nn.Module:
    """The model of timm, always with the same random weights where it is not pretrained. ValueError
    where it cannot be made.
    """
    import timm

    if size is None and facts is not None:
        size = (facts.side, facts.side)

    def create(more: dict[str, object]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **more)  # pyright: ignore[reportArgumentType]

    try:
        if size is not None:
            try:
                return create({**options, "img_size": size})
            except TypeError:  # a network without a grid, which takes any size
                pass
        return create(options)
    except Exception as error:  # of the network, the hub, or timm
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"encoder {name!r}: its weights cannot be fetched ({reason}); {_OFFLINE}"
        ) from None


def _file_without_network(name: str) -> str | None:
    """The file of an encoder's weights that was fetched before, if the hub cannot be reached now;
    None where it can be reached, or is not needed.

    timm itself would try for most of a minute. Raises ValueError where there is neither.
    """
    from huggingface_hub import constants

    if not _repository(name) or hub_answers():
        return None
    if (cached := cached_hub_file(name)) is not None:
        return cached
    raise ValueError(
        f"encoder {name!r}: its weights were never fetched, and {constants.ENDPOINT} cannot be "
        f"reached; {_OFFLINE}"
    )


def cached_hub_file(name: str) -> str | None:
    """The file of a model's weights that was fetched from the hub before, without asking it; None
    where there is none. name: of timm, or "hf-hub:OWNER/NAME".
    """
    from huggingface_hub import try_to_load_from_cache

    repository = _repository(name)
    for file in ("model.safetensors", "pytorch_model.bin") if repository else ():
        cached = try_to_load_from_cache(str(repository).split("@")[0], file)
        if isinstance(cached, str):
            return cached
    return None


def _repository(name: str) -> str | None:
    """The repository of the hub that has a model's weights."""
    import timm

    if name.startswith(HUB):
        return name.removeprefix(HUB)
    return getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)


def on_hub(name: str) -> bool:
    """Whether the hub has weights of a model, by its name in timm, and can be reached now."""
    return bool(_repository(name)) and hub_answers()


def hub_answers() -> bool:
    """Whether the hub can be reached now; takes a few seconds at most."""
    from huggingface_hub import constants

    return _answers(constants.ENDPOINT)


def _answers(address: str) -> bool:
    """Whether a server answers within a few seconds, whatever it says; by a proxy where the
    environment names one.
    """
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(address, method="HEAD"), timeout=_SECONDS).close()
    except HTTPError:
        return True
    except URLError as error:
        # Certificates are not judged here: whoever fetches has a list of its own.
        return "CERTIFICATE" in str(error.reason).upper()
    except (OSError, ValueError):
        return False
    return True


def require_timm(name: str, what: str) -> None:
    """Raise ValueError, naming near ones, for a name that timm does not know. what: how to call it,
    name included.
    """
    import timm

    if not name.startswith(HUB) and not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 5)
        raise ValueError(
            f"{what} is unknown to timm" + (f"; near it: {', '.join(close)}" if close else "")
        )


def not_made(what: str, error: Exception) -> ValueError:
    """What to raise where timm cannot make a model, be it of the network, the hub, or itself."""
    reason = " ".join(str(error).split())[:160]
    return ValueError(
        f"{what} cannot be made ({reason}); without network give a file of weights, or 'random'"
    )


def fitting(model: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that a model has room for, without others (of a classifier), and the names of
    those that it lacks.
    """
    expected = model.state_dict()
    matching = {
        key: value
        for key, value in state.items()
        if key in expected and value.shape == expected[key].shape
    }
    return matching, [
        key for key in expected if key not in matching and not key.endswith("num_batches_tracked")
    ]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named weights of a file, without the prefixes that wrappers add. Raises ValueError where
    there are none.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of weights")
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist())
        if packed:  # torch writes none; unpacked it may fill the memory
            raise ValueError(f"{path}: is a packed archive; save the weights with torch.save")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())[:120]})"
        ) from None
    for key in ("state_dict", "model", "teacher"):
        state = (
            state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
        )
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds no named weights")
    plain = (
        (str(key).removeprefix("module.").removeprefix("backbone."), value)
        for key, value in state.items()
    )
    return {key: value for key, value in plain if isinstance(value, Tensor)}


def _load(model: nn.Module, path: Path) -> None:
    """Weights from a file; those of a classifier that is not there are left out."""
    matching, missing = fitting(model, _with_positions(read_weights(path), model))
    if missing:
        count = len(model.state_dict())
        raise ValueError(
            f"{path}: lacks {len(missing)} of {count} weights, or in other shapes; {missing[0]}"
        )
    model.load_state_dict(matching, strict=False)


def _with_positions(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights whose positions of a square grid of patches are resized to the model's grid, as timm
    does.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    positions, built = state.get("pos_embed"), getattr(model, "pos_embed", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None or positions is None or not isinstance(built, Tensor):
        return state
    prefix = built.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(0, positions.shape[1] - prefix))
    if positions.shape == built.shape or side * side != positions.shape[1] - prefix:
        return state
    resized = resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=prefix)
    return {**state, "pos_embed": resized}
