import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from parvox.errors import ModelFileError, OutputError
from parvox.training import checkpoint
from parvox.training.checkpoint import load_tensors, optimizer_tensors, restore_optimizer, save_tensors


def test_tensors_and_state_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.tensor(7), "c": torch.ones(2).bfloat16()}
    save_tensors(tmp_path / "x.safetensors", tensors, {"step": 3, "best": float("inf")})
    got, state = load_tensors(tmp_path / "x.safetensors")
    assert state == {"step": 3, "best": float("inf")}
    assert all(torch.equal(got[name], tensor) and got[name].dtype == tensor.dtype for name, tensor in tensors.items())


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_goes_on_as_if_never_stopped(kind, tmp_path):
    options = {"lr": 0.1, "momentum": 0.9} if kind is torch.optim.SGD else {"lr": 0.1}

    def run(stop_after):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = kind(model.parameters(), **options)
        for step in range(6):
            if step == stop_after:
                weights, state = {k: v.clone() for k, v in model.state_dict().items()}, optimizer_tensors(optimizer)
                save_tensors(tmp_path / "o.safetensors", state)
                model = torch.nn.Linear(4, 2)
                model.load_state_dict(weights)
                optimizer = kind(model.parameters(), **options)
                restore_optimizer(optimizer, load_tensors(tmp_path / "o.safetensors")[0])
            model(torch.full((1, 4), float(step))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.weight

    assert torch.equal(run(stop_after=3), run(stop_after=None))


def test_a_full_disk_is_one_line_and_keeps_the_old(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(1)})
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left"):
        save_tensors(path, {"a": torch.zeros(1)})
    assert load_tensors(path)[0]["a"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]


def test_damage_is_found(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match="damaged"):
        load_tensors(path)
    path.write_text("text")
    with pytest.raises(ModelFileError, match="damaged"):
        load_tensors(path)
    for state in ("[]", "[" * 100_000 + "]" * 100_000, "{"):
        save_file({"a": torch.ones(1)}, path, metadata={"state": state})
        with pytest.raises(ModelFileError, match="damaged"):
            load_tensors(path)
    with pytest.raises(ModelFileError, match="missing"):
        load_tensors(tmp_path / "other.safetensors")


def test_flipped_bits_are_found(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(100), "b": torch.ones(())}, {"step": 3})
    good = path.read_bytes()
    for place in (good.index(b"step"), -1, -30):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(ModelFileError, match="is damaged"):
            load_tensors(path)
    path.write_bytes(good)
    assert load_tensors(path)[1] == {"step": 3}
