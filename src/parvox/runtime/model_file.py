"""The model file: one ONNX file that carries its own contract and checksum, read without the onnx package.

The checksum finds damage, not malice: whoever can change the file can seal it again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from parvox.errors import ModelFileError
from parvox.runtime import contract_fields as fields
from parvox.runtime.operating import DurationBand, LlrMap, OperatingPoint, bands, check_bands, operating_points

FORMAT = 1
CONTRACT_KEY = "parvox_contract"
CHECKSUM_KEY = "parvox_sha256"
UNSEALED = "0" * 64
"""What stands in place of the checksum while the checksum is computed."""

Precision = Literal["fp32", "int8"]

_HIGHEST_RATE_HZ = 192_000
_LARGEST_NUMBER = 1e6  # in an embedding

_METADATA_FIELD = 14  # ModelProto.metadata_props, onnx.proto
_LIKELY_ONNX = b"\x08"  # ir_version comes first
_EXPECTED = "a model file written by parvox export is expected"


class NoContractError(ModelFileError):
    """An ONNX model that `parvox export` did not write."""


class _NotProtobufError(ModelFileError):
    def __init__(self) -> None:
        super().__init__("not a protocol buffer")


@dataclass(frozen=True)
class Golden:
    """An embedding that the model must give for a known signal.

    Attributes:
        signal: Name of the signal, for `parvox.runtime.golden.golden_signal`.
        embedding: (embedding_dim,), what the exporting machine got.
        max_cosine_distance: How far another machine's may be from it.
    """

    signal: str
    embedding: tuple[float, ...] = dataclasses.field(repr=False)
    max_cosine_distance: float


@dataclass(frozen=True, kw_only=True)
class ModelContract:
    """What a model file says of itself; see docs/architecture.md.

    Attributes:
        name: The model's name.
        precision: "fp32" or "int8".
        sample_rate_hz: The rate it listens at.
        min_samples: The fewest samples it accepts.
        embedding_dim: Size of its embeddings.
        features: The front end's settings.
        parameters: Weights shipped.
        macs_1s: Multiply-accumulates for one second of speech.
        mean: (embedding_dim,) to subtract before scoring, or None.
        thresholds: Operating points by name, over recordings of all lengths.
        default_threshold: The operating point used unless another is named; None without any.
        unsupported: Operating points wanted that the trials could not support: why, by name.
        bands: Thresholds by seconds of net speech, the shortest first; may be empty.
        calibration: What turns scores into log-likelihood ratios, or None.
        compatible_with: Fingerprints of other models whose embeddings may be compared with this one's: the teacher
            whose embeddings it was trained to give.
        golden: The check made at load.
        fingerprint: SHA-256 of the fp32 weights; embeddings of equal fingerprints may be compared.
        synthetic: Whether it was trained on synthetic voices.
        licence: Licence of the weights.
        recipe: The recipe that made it, YAML.
        parvox_version: The Parvox that exported it.
        format: Version of this contract.
    """

    name: str
    precision: Precision
    sample_rate_hz: int
    min_samples: int
    embedding_dim: int
    features: dict[str, Any]
    parameters: int
    macs_1s: int
    mean: tuple[float, ...] | None = dataclasses.field(repr=False)
    thresholds: dict[str, OperatingPoint]
    default_threshold: str | None
    golden: Golden
    fingerprint: str
    synthetic: bool
    licence: str
    recipe: str = dataclasses.field(repr=False)
    parvox_version: str
    unsupported: dict[str, str] = dataclasses.field(default_factory=dict)
    bands: tuple[DurationBand, ...] = ()
    calibration: LlrMap | None = None
    compatible_with: tuple[str, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        for what, value, least, most in (
            ("sample_rate_hz", self.sample_rate_hz, 1000, _HIGHEST_RATE_HZ),
            ("min_samples", self.min_samples, 1, None),
            ("embedding_dim", self.embedding_dim, 1, None),
            ("parameters", self.parameters, 0, None),
            ("macs_1s", self.macs_1s, 0, None),
        ):
            if value < least or (most is not None and value > most):
                wanted = f"{least} or more" if most is None else f"{least} to {most}"
                raise ModelFileError(f"contract: {what} {value} given; {wanted} is expected")
        for what, text in (
            ("name", self.name),
            *(("a threshold's source", p.source) for p in self.thresholds.values()),
        ):
            if any(unicodedata.category(letter) == "Cc" for letter in text):
                raise ModelFileError(f"contract: {what} {text[:40]!r} given; expected text without control characters")
        if self.precision not in get_args(Precision):
            raise ModelFileError(f"contract: precision {self.precision!r} given; 'fp32' or 'int8' is expected")
        for what, vector in (("mean", self.mean), ("golden.embedding", self.golden.embedding)):
            if vector is not None and len(vector) != self.embedding_dim:
                raise ModelFileError(
                    f"contract: {what} of {len(vector)} numbers given; {self.embedding_dim} are expected"
                )
            if vector is not None and any(abs(value) > _LARGEST_NUMBER for value in vector):
                raise ModelFileError(
                    f"contract: {what} with numbers beyond {_LARGEST_NUMBER:g} given; smaller ones expected"
                )
        if self.default_threshold is not None and self.default_threshold not in self.thresholds:
            known = ", ".join(self.thresholds) or "none"
            raise ModelFileError(
                f"contract: default_threshold {self.default_threshold!r} given; known operating points: {known}"
            )
        check_bands(self.bands)

    def to_json(self) -> str:
        """The contract as it stands in a model file's metadata."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False, ensure_ascii=True, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read and check a contract.

        Args:
            text: What `to_json` gave. Keys it does not know are left alone.

        Raises:
            ModelFileError: it is not JSON, of another format, or a field is missing or of another type.
        """
        try:
            values = json.loads(text, parse_int=fields.whole)
        except (ValueError, RecursionError):
            raise ModelFileError("contract: not JSON; export the model again") from None
        if not isinstance(values, dict):
            raise ModelFileError("contract: a JSON object is expected; export the model again")
        if values.get("format") != FORMAT:
            raise ModelFileError(
                f"contract: format {values.get('format')!r} given, this Parvox reads format {FORMAT}: "
                "export the model again, or install the Parvox that wrote it"
            )
        golden = fields.field(values, "golden", dict)
        calibration = fields.optional(values, "calibration", dict)
        return cls(
            name=fields.field(values, "name", str),
            precision=fields.field(values, "precision", str),
            sample_rate_hz=fields.field(values, "sample_rate_hz", int),
            min_samples=fields.field(values, "min_samples", int),
            embedding_dim=fields.field(values, "embedding_dim", int),
            features=fields.field(values, "features", dict),
            parameters=fields.field(values, "parameters", int),
            macs_1s=fields.field(values, "macs_1s", int),
            mean=None if values.get("mean", 0) is None else fields.vector(values, "mean"),
            thresholds=operating_points(values),
            default_threshold=(
                None if values.get("default_threshold", 0) is None else fields.field(values, "default_threshold", str)
            ),
            golden=Golden(
                signal=fields.field(golden, "signal", str, "golden."),
                embedding=fields.vector(golden, "embedding", "golden."),
                max_cosine_distance=fields.field(golden, "max_cosine_distance", float, "golden."),
            ),
            fingerprint=fields.field(values, "fingerprint", str),
            synthetic=fields.field(values, "synthetic", bool),
            licence=fields.field(values, "licence", str),
            recipe=fields.field(values, "recipe", str),
            parvox_version=fields.field(values, "parvox_version", str),
            unsupported=fields.texts(values, "unsupported"),
            bands=bands(values),
            calibration=None if calibration is None else LlrMap.from_dict(calibration),
            compatible_with=_fingerprints(values),
        )


def read_contract(path: str | os.PathLike[str]) -> ModelContract:
    """The contract of a model file, after checking that no byte of the file has changed.

    Args:
        path: A file written by `parvox export`.

    Raises:
        ModelFileError: it is missing, not a Parvox model, damaged, or of another format.
    """
    return read_model_file(path)[1]


def read_model_file(path: str | os.PathLike[str]) -> tuple[bytes, ModelContract]:
    """The bytes of a model file and its contract; see `read_contract`."""
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises for names that no system takes
        raise ModelFileError(f"{path}: a folder; {_EXPECTED} (parvox export turns a run folder into one)")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; {_EXPECTED}") from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"{path}: cannot be opened ({words}); {_EXPECTED}") from None
    try:
        return data, _contract(data)
    except ModelFileError as error:
        raise type(error)(f"{path}: {error}") from None


def seal(data: bytes) -> bytes:
    """Fill in the checksum of a model file.

    Args:
        data: A serialised ONNX model whose metadata has the contract and, as checksum, `UNSEALED`.

    Raises:
        ModelFileError: the metadata lacks one of them, or has one twice.
    """
    entries = _metadata(data)
    start, end = _only(entries, CHECKSUM_KEY)
    _only(entries, CONTRACT_KEY)
    if data[start:end] != UNSEALED.encode():
        raise ModelFileError(f"{CHECKSUM_KEY} is not 64 zeros before sealing")
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[end:]


def with_contract(data: bytes, contract: ModelContract) -> bytes:
    """A model file with another contract; the graph stays as it is, to the last byte.

    Args:
        data: The bytes of a model file.
        contract: What it is to say of itself.

    Returns:
        The sealed file.
    """
    kept, before = [], 0
    for number, start, end in _fields(data, 0, len(data)):
        field = data[before:end]  # its tag and length included
        before = end
        ours = number == _METADATA_FIELD and any(
            data[value:stop] in (CONTRACT_KEY.encode(), CHECKSUM_KEY.encode())
            for _, value, stop in _fields(data, start, end)
        )
        if not ours:
            kept.append(field)
    kept += [_entry(CONTRACT_KEY, contract.to_json()), _entry(CHECKSUM_KEY, UNSEALED)]
    return seal(b"".join(kept))


def _entry(key: str, value: str) -> bytes:
    """A metadata entry as it stands in a serialised ModelProto."""
    content = b"".join(
        bytes([number << 3 | 2]) + _length(len(text)) + text
        for number, text in ((1, key.encode()), (2, value.encode()))
    )
    return bytes([_METADATA_FIELD << 3 | 2]) + _length(len(content)) + content


def _length(value: int) -> bytes:
    """A protobuf varint."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _contract(data: bytes) -> ModelContract:
    if not data:
        raise ModelFileError(f"empty, 0 bytes; {_EXPECTED}")
    damaged = ModelFileError("damaged: its checksum does not match its content; copy or export it again")
    try:
        entries = _metadata(data)
        start, end = _only(entries, CHECKSUM_KEY)
        contract_start, contract_end = _only(entries, CONTRACT_KEY)
    except ModelFileError as error:
        if CONTRACT_KEY.encode() in data or CHECKSUM_KEY.encode() in data:
            raise damaged from None
        if not data.startswith(_LIKELY_ONNX):
            raise ModelFileError(f"not a model file ({error}); {_EXPECTED}") from None
        if isinstance(error, _NotProtobufError):
            raise ModelFileError(f"truncated or not a model file ({error}); {_EXPECTED}") from None
        raise NoContractError(f"an ONNX model without Parvox's contract ({error}); {_EXPECTED}") from None
    digest = hashlib.sha256(data[:start])
    digest.update(UNSEALED.encode())
    digest.update(memoryview(data)[end:])
    if digest.hexdigest().encode() != data[start:end]:
        raise damaged
    return ModelContract.from_json(data[contract_start:contract_end].decode("utf-8", "replace"))


def _only(entries: list[tuple[bytes, int, int]], key: str) -> tuple[int, int]:
    """Where the value of `key` stands, which must be there exactly once."""
    found = [(start, end) for name, start, end in entries if name == key.encode()]
    if len(found) != 1:
        raise ModelFileError(f"{key} stands {len(found)} times in its metadata instead of once")
    return found[0]


def _metadata(data: bytes) -> list[tuple[bytes, int, int]]:
    """Key, and start and end of the value, of each metadata entry of a serialised ModelProto.

    Walks the outermost fields only, so nothing inside the graph can pass for metadata.
    """
    entries = []
    for number, start, end in _fields(data, 0, len(data)):
        if number != _METADATA_FIELD:
            continue
        parts = list(_fields(data, start, end))
        if sorted(number for number, _, _ in parts) == [1, 2]:  # StringStringEntryProto: key, value
            (_, *key), (_, *value) = sorted(parts)
            entries.append((data[key[0] : key[1]], value[0], value[1]))
    return entries


def _fields(data: bytes, position: int, end: int) -> Any:
    """Yield (field number, start, end) of the protobuf fields in ``data[position:end]``."""
    while position < end:
        tag, position = _varint(data, position, end)
        wire = tag & 7
        if wire == 0:
            start = position
            _, position = _varint(data, position, end)
        elif wire == 2:
            size, start = _varint(data, position, end)
            position = start + size
        elif wire in (1, 5):
            start = position
            position += 8 if wire == 1 else 4
        else:
            raise _NotProtobufError
        if position > end or tag >> 3 == 0:
            raise _NotProtobufError
        yield tag >> 3, start, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _NotProtobufError


def _fingerprints(values: dict[str, Any]) -> tuple[str, ...]:
    given = fields.optional(values, "compatible_with", list) or []
    numbered = {str(number): value for number, value in enumerate(given)}
    return tuple(fields.field(numbered, number, str, "compatible_with.") for number in numbered)
