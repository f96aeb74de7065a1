"""The model file: nothing damaged or foreign gets through, and every refusal is one clear line."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from parvox.errors import ModelFileError
from parvox.runtime.model_file import (
    CHECKSUM_KEY,
    CONTRACT_KEY,
    UNSEALED,
    ModelContract,
    read_contract,
    read_model_file,
    seal,
)
from parvox.runtime.operating import DurationBand, LlrMap


def refusal(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        read_contract(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_was_written_is_read(model_path: Path) -> None:
    assert read_contract(model_path) == tiny_model.contract(tiny_model.bare_model())


def test_the_file_stays_a_model_for_everyone_else(model_bytes: bytes) -> None:
    model = onnx.load_model_from_string(model_bytes)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert set(metadata) == {CONTRACT_KEY, CHECKSUM_KEY, "producer_note"}
    zeroed = model_bytes.replace(metadata[CHECKSUM_KEY].encode(), UNSEALED.encode())
    assert hashlib.sha256(zeroed).hexdigest() == metadata[CHECKSUM_KEY]


def test_any_byte_changed_is_found(model_bytes: bytes, tmp_path: Path) -> None:
    chance = random.Random(7)
    start = model_bytes.index(b"parvox_contract") - 40
    edges = [*range(64), *range(start, start + 120), *range(len(model_bytes) - 160, len(model_bytes))]
    for position in [*edges, *(chance.randrange(len(model_bytes)) for _ in range(500))]:
        changed = bytearray(model_bytes)
        changed[position] ^= chance.randrange(1, 256)
        assert "damaged" in refusal(tmp_path / "m.onnx", bytes(changed)), position


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_cut_swapped_or_lengthened_is_found(data: st.DataObject) -> None:
    from parvox.runtime.model_file import _contract  # without the file system, for speed

    whole = SMALL
    kind = data.draw(st.sampled_from(["cut", "append", "insert", "delete", "swap"]))
    at = data.draw(st.integers(0, len(whole) - 2))
    extra = data.draw(st.binary(min_size=1, max_size=80))
    made = {
        "cut": whole[:at],
        "append": whole + extra,
        "insert": whole[:at] + extra + whole[at:],
        "delete": whole[:at] + whole[at + 1 :],
        "swap": whole[:at] + whole[at + 1 : at + 2] + whole[at : at + 1] + whole[at + 2 :],
    }[kind]
    if made == whole:
        return
    with pytest.raises(ModelFileError):
        _contract(made)


def small_model() -> onnx.ModelProto:
    """The least that is a model at all: what these tests read is around the graph."""
    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [info], [out])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


CONTRACT = tiny_model.contract(tiny_model.bare_model())
SMALL = seal(tiny_model.unsealed(small_model(), CONTRACT.to_json()))


def test_look_alikes_elsewhere_do_not_matter(tmp_path: Path) -> None:
    fake = helper.make_model(small_model().graph)
    helper.set_model_props(fake, {CHECKSUM_KEY: UNSEALED, CONTRACT_KEY: "{}"})
    entry = fake.metadata_props[0].SerializeToString()
    field = b"\x72" + bytes([len(entry)]) + entry  # as it would stand in the file
    model = small_model()
    model.doc_string = field.decode("latin-1")
    model.graph.doc_string = field.decode("latin-1")
    weights = onnx.numpy_helper.from_array(tiny_model.np.frombuffer(field * 3, tiny_model.np.uint8), CHECKSUM_KEY)
    model.graph.initializer.append(weights)
    contract = dataclasses.replace(CONTRACT, recipe=f"{CHECKSUM_KEY}: {UNSEALED}")
    data = seal(tiny_model.unsealed(model, contract.to_json()))
    assert data.count(UNSEALED.encode()) > 3
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert read_contract(path) == contract
    for position in (at for at in range(len(data)) if data.startswith(UNSEALED.encode(), at)):
        assert "damaged" in refusal(path, data[:position] + b"1" + data[position + 1 :])


@pytest.mark.parametrize("key", [CHECKSUM_KEY, CONTRACT_KEY])
def test_entries_given_twice_are_refused(key: str, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(SMALL)
    model.metadata_props.add(key=key, value=UNSEALED)
    refusal(tmp_path / "m.onnx", model.SerializeToString())
    with pytest.raises(ModelFileError, match="2 times"):
        seal(model.SerializeToString())


def test_sealing_twice_is_refused() -> None:
    with pytest.raises(ModelFileError, match="64 zeros"):
        seal(SMALL)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a" * 100)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"just some text, not a model\n" * 20, "not a model file"),
        (zipped(), "not a model file"),
        (bytes(1000), "not a model file"),
        (b"\xff" * 1000, "not a model file"),
        (small_model().SerializeToString()[:40], "truncated"),
        (small_model().SerializeToString(), "an ONNX model without Parvox's contract"),
    ],
)
def test_what_is_no_model(data: bytes, words: str, tmp_path: Path) -> None:
    message = refusal(tmp_path / "m.onnx", data)
    assert words in message
    assert "parvox export" in message


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_no_model(data: bytes) -> None:
    from parvox.runtime.model_file import _contract

    with pytest.raises(ModelFileError):
        _contract(data)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "no.onnx")
    assert "a folder" in refusal(tmp_path)
    with pytest.raises(ModelFileError):
        read_contract("a\0b")


def sealed_with(text: str) -> bytes:
    return seal(tiny_model.unsealed(small_model(), text))


def test_another_format(tmp_path: Path) -> None:
    values = json.loads(CONTRACT.to_json()) | {"format": 2}
    message = refusal(tmp_path / "m.onnx", sealed_with(json.dumps(values)))
    assert "format 2" in message
    assert "format 1" in message


@pytest.mark.parametrize("text", ["", "no json", "[1, 2]", "{}", "null", "[" * 100_000, '{"format": 1}'])
def test_contracts_that_are_none(text: str, tmp_path: Path) -> None:
    assert "contract" in refusal(tmp_path / "m.onnx", sealed_with(text))


POINT = dataclasses.replace(
    CONTRACT.thresholds["strict"],
    interval=(0.95, 0.99),
    false_accept_interval=(0.0, 0.01),
    false_reject_interval=(0.01, 0.05),
    smallest_rate=0.0005,
)
FULL = dataclasses.replace(
    CONTRACT,
    thresholds={"strict": POINT},
    default_threshold="strict",
    unsupported={"far_0.1pct": "Unknown: too few."},
    bands=(
        DurationBand(0.0, 1.0, 7, 120, 3400, {"strict": POINT}, {"far_0.1pct": "Unknown: far too few."}),
        DurationBand(1.0, None, 7, 0, 3, {}, {"strict": "Unknown: hardly any."}),
    ),
    calibration=LlrMap({"score": 9.0, "log_shorter_s": 0.5}, -3.0, {"log_shorter_s": (-1.0, 1.5)}, (-4.0, 6.0), "dev"),
    compatible_with=("5" * 64,),
)
OPTIONAL = {
    *("unsupported", "bands", "calibration", "compatible_with", "to_s"),
    *("interval", "false_accept_interval", "false_reject_interval", "smallest_rate"),
}


def leaves(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(values, dict) and path != ("features",):
        return [path, *(leaf for key in values for leaf in leaves(values[key], (*path, key)))]
    if isinstance(values, list) and path in (("bands",), ("compatible_with",)):
        return [path, *(leaf for key, value in enumerate(values) for leaf in leaves(value, (*path, key)))]
    return [path]


PATHS = [path for path in leaves(json.loads(FULL.to_json())) if path and path != ("mean",)]
CASES = [
    (path, wrong)
    for path in PATHS
    for wrong in ("missing", "other type", "huge")
    if wrong != "missing"
    or not (
        path[-1] in OPTIONAL  # not there in files of before
        or isinstance(path[-1], int)
        or path[-2:-1] in (("thresholds",), ("unsupported",))  # any set of them will do
    )
]


@pytest.mark.parametrize(
    ("path", "wrong"), CASES, ids=lambda part: part if isinstance(part, str) else ".".join(map(str, part))
)
def test_every_field_is_checked(path: tuple[Any, ...], wrong: str) -> None:
    values = json.loads(FULL.to_json())
    inside = values
    for key in path[:-1]:
        inside = inside[key]
    if wrong == "missing":
        del inside[path[-1]]
    elif wrong == "huge":
        inside[path[-1]] = 10**400
    else:
        inside[path[-1]] = [True]
    with pytest.raises(ModelFileError, match="contract") as caught:
        ModelContract.from_json(json.dumps(values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16"},
        {"sample_rate_hz": 0},
        {"embedding_dim": 47},
        {"mean": (0.5,)},
        {"default_threshold": "lost"},
        {"min_samples": -1},
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match="contract"):
        dataclasses.replace(CONTRACT, **changes)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "true", '"0.5"'])
def test_thresholds_are_finite_numbers(number: str) -> None:
    text = CONTRACT.to_json().replace('"threshold": 0.97', f'"threshold": {number}')
    assert text != CONTRACT.to_json()
    with pytest.raises(ModelFileError, match=r"thresholds\.strict\.threshold"):
        ModelContract.from_json(text)


def test_files_of_before_the_bands_are_read() -> None:
    values = json.loads(CONTRACT.to_json())
    for name in OPTIONAL & values.keys():
        del values[name]
    for point in values["thresholds"].values():
        for name in OPTIONAL & point.keys():
            del point[name]
    assert ModelContract.from_json(json.dumps(values)) == CONTRACT


def test_bands_and_calibration_are_read_as_written() -> None:
    assert ModelContract.from_json(FULL.to_json()) == FULL


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([(0, 1), (2, None)], "begin where the one before ends"),
        ([(0, None), (1, 2)], "begin where the one before ends"),
        ([(2, 1)], "rising ends"),
        ([(-1, 1)], "rising ends"),
    ],
)
def test_bands_that_overlap_or_leave_gaps(ends: list[tuple[float, float | None]], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        dataclasses.replace(FULL, bands=tuple(DurationBand(low, high, 5, 20, 20) for low, high in ends))


def test_optional_fields_may_be_null() -> None:
    changed = dataclasses.replace(CONTRACT, mean=(0.25,) * 48, thresholds={}, default_threshold=None)
    assert ModelContract.from_json(changed.to_json()) == changed


def test_names_of_any_language(tmp_path: Path) -> None:
    contract = dataclasses.replace(CONTRACT, name="Größe 日本", recipe="# ü\nmodel:\n  encoder: x\n")
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed_with(contract.to_json()))
    data, read = read_model_file(path)
    assert read == contract
    assert data == path.read_bytes()
