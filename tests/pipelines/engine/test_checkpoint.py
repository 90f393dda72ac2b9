"""Checkpoints: round trip, damage, and nothing unpickled."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_state_dict

from headwise.base.errors import InputError
from headwise.pipelines.engine.runs import checkpoint
from headwise.tests.hostile import HEADERS


def states(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    return get_state_dict(model, optimizer)


def write(folder, step, seed=0):
    return checkpoint.save(folder, step, *states(seed), {"epoch": step})


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


def test_round_trip(tmp_path):
    model, optimizer = states(1)
    checkpoint.save(tmp_path, 7, model, optimizer, {"epoch": 3})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded["step"] == 7
    assert loaded["progress"] == {"epoch": 3}
    assert equal(loaded["model"], dict(model))
    assert equal(loaded["optimizer"]["state"], optimizer["state"])
    assert equal(
        loaded["optimizer"]["param_groups"], json.loads(json.dumps(optimizer["param_groups"]))
    )
    assert (tmp_path / "LAST").read_text() == "step-000000007"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, damage, name):
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    if (damage, name) == (flip, "state.json"):
        (newest / name).write_text((newest / name).read_text().replace("sha256", "sha265"))
    else:
        damage(newest / name)
    with pytest.warns(UserWarning, match="falling back to the one before"):
        assert checkpoint.load_newest(tmp_path)["step"] == 1


def test_a_missing_pointer_is_no_loss(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "LAST").unlink()
    with pytest.warns(UserWarning, match="missing"):
        assert checkpoint.load_newest(tmp_path)["step"] == 1


def test_all_damaged_is_an_error_and_none_is_none(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    empty(write(tmp_path, 1) / "state.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="no checkpoint can be read"):
            checkpoint.load_newest(tmp_path)


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 6):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, 2, "step-000000001")
    assert sorted(p.name for p in tmp_path.glob("step-*")) == [f"step-{i:09d}" for i in (1, 4, 5)]


@pytest.mark.parametrize("what", HEADERS)
def test_hostile_weights_are_one_clear_line(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(HEADERS[what])
    with pytest.raises(InputError, match="not a readable safetensors file") as caught:
        checkpoint.load_weights(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "unpickled").exists()
