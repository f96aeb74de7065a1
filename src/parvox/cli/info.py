"""`parvox info`."""

from __future__ import annotations

import dataclasses
import json as json_format
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parvox.cli.operating import threshold_rows
from parvox.cli.parsing import call
from parvox.errors import MissingExtraError, ModelFileError
from parvox.settings import Parser
from parvox.tables import aligned, millions

if TYPE_CHECKING:
    from parvox.runtime.model_file import ModelContract
    from parvox.training.recipe import Recipe


_PROG = "parvox info"


def main(argv: list[str]) -> None:
    """Look and print."""
    position = next((at for at, word in enumerate(argv) if not word.startswith("-") and _is_recipe(Path(word))), None)
    if position is not None:
        _show_recipe(Path(argv[position]), [*argv[:position], *argv[position + 1 :]])
    else:
        call(info, argv, prog=_PROG)


def info(path: Path, *, json: bool = False) -> None:
    """Show what a model file, run folder, recipe or prepared corpus holds.

    Args:
        path: Model file (its checksum is checked), run folder of parvox train or distill, recipe (.yaml; its model is
            shown layer by layer, and its fields can be overridden as in training: --model.channels 256), or folder of
            parvox fit-head or prepare.
        json: Print one JSON object, with everything.
    """
    if os.path.isfile(path / "corpus.json"):  # Path.is_file raises for names that no system takes
        told, text = _corpus(path)
    elif os.path.isdir(path):
        told, text = _run_folder(path)
    else:
        told, text = _model_file(path)
    print(json_format.dumps(told) if json else text)


def _is_recipe(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml") and not os.path.isdir(path)


def _model_file(path: Path) -> tuple[dict[str, Any], str]:
    from parvox.runtime.model_file import read_model_file

    data, contract = read_model_file(path)
    told = {"kind": "model", "path": str(path), "bytes": len(data), **dataclasses.asdict(contract)}
    return told, "\n".join([f"{path}: model file of {_size(len(data))}, checksum right", *_contract_lines(contract)])


def _contract_lines(contract: ModelContract) -> list[str]:
    rate = contract.sample_rate_hz
    voices = "synthetic voices only: do not rely on it for real ones" if contract.synthetic else "real voices"
    rows = [
        ("model", f"{contract.name} ({contract.precision})"),
        ("input", f"waveform at {rate} Hz, {contract.min_samples / rate:.3g} s or more"),
        ("embedding", f"{contract.embedding_dim} numbers" + (", less their mean" if contract.mean else "")),
        ("parameters", f"{contract.parameters:,}"),
        ("MACs", f"{contract.macs_1s / 1e6:,.1f} M for 1 s"),
        ("features", ", ".join(f"{key} {value}" for key, value in contract.features.items())),
        ("learned from", voices),
        ("licence", contract.licence or "not stated"),
        ("fingerprint", contract.fingerprint),
        ("exported by", f"Parvox {contract.parvox_version}"),
        ("recipe", f"{len(contract.recipe.splitlines())} lines (--json shows them)"),
    ]
    rows += threshold_rows(
        contract.thresholds, contract.unsupported, contract.bands, contract.calibration, contract.default_threshold
    )
    return aligned(rows)


def _run_folder(path: Path) -> tuple[dict[str, Any], str]:
    """Summary and recipe of a run, or of a head; read as plain files: no torch needed."""
    kind, what, name = ("run", "run folder", "recipe.yaml")
    if (path / "head.yaml").is_file():
        kind, what, name = ("head", "speaker head of parvox fit-head", "head.yaml")
    recipe_path, summary_path = path / name, path / "summary.json"
    if not recipe_path.is_file():
        raise ModelFileError(
            f"{path}: a folder without recipe.yaml; a run folder of parvox train, distill or fit-head expected"
        )
    if not summary_path.is_file():
        raise ModelFileError(f"{path}: an unfinished run, without summary.json; finish it with --resume")
    try:
        recipe = recipe_path.read_text(encoding="utf-8")
        summary = json_format.loads(summary_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ModelFileError(f"{path}: {name} or summary.json is damaged; restore them or train again") from None
    if not isinstance(summary, dict):
        raise ModelFileError(f"{summary_path}: holds no JSON object; restore it or train again")
    rows = [(key, f"{value:.6g}" if isinstance(value, float) else str(value)) for key, value in summary.items()]
    text = "\n".join([f"{path}: {what}", *aligned(rows), "", f"{name}:", recipe.rstrip()])
    return {"kind": kind, "path": str(path), "summary": summary, "recipe": recipe}, text


def _show_recipe(path: Path, options: list[str]) -> None:
    """The model layer by layer, and the recipe with every default filled in.

    Args:
        path: Recipe file.
        options: --json, and overrides as in training.
    """
    try:
        from parvox.training.recipe import build_recipe
        from parvox.training.recipe_parsing import parse_recipe
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{_PROG} of a recipe ({error.name} is not installed)", "train") from error

    def extend(parser: Parser) -> None:
        parser.add_argument("--json", action="store_true", help="Print one JSON object, with everything.")

    values = parse_recipe(path, options, _PROG, "Show the model of a recipe layer by layer.", extend)
    json = values.pop("json")
    told, text = _recipe(path, build_recipe(values))
    print(json_format.dumps(told) if json else text)


def _recipe(path: Path, recipe: Recipe) -> tuple[dict[str, Any], str]:
    from parvox.models import SpeakerModel
    from parvox.models.breakdown import layers
    from parvox.models.cost import cost

    model = SpeakerModel(recipe.model)
    least_s = model.min_samples / recipe.model.features.sample_rate_hz
    costs = cost(model, max(1.0, least_s))
    parts = layers(model, costs.seconds)
    told = {
        "kind": "recipe",
        "path": str(path),
        **dataclasses.asdict(costs),
        "least_s": least_s,
        "layers": [dataclasses.asdict(part) for part in parts],
        "recipe": recipe.to_dict(),
    }
    for_speech = f"for {costs.seconds:g} s of speech"
    rows = [("layer", "type", "output", "parameters", "MACs")]
    for part in parts:
        inside = [other for other in parts if other is part or other.name.startswith(f"{part.name}.")]
        counted = [part] if "." in part.name else inside
        shape = "" if part.output is None else " × ".join(map(str, part.output))
        parameters, macs = sum(each.parameters for each in counted), sum(each.macs for each in counted)
        rows.append((part.name, part.type, shape, f"{parameters:,}", f"{macs:,}"))
    lines = [
        f"{path}: recipe of a model with {costs.parameters:,} parameters",
        f"{millions(costs.macs)} multiply-accumulates (MACs) {for_speech}, and {millions(costs.feature_macs)} for "
        f"features; it takes {least_s:.3f} s or more",
        "",
        *aligned(rows, right=(3, 4)),
        f"Outputs and MACs are those {for_speech}. The four parts count all that is in them, other lines their own.",
        "",
        recipe.to_yaml().rstrip(),
    ]
    return told, "\n".join(lines)


def _corpus(path: Path) -> tuple[dict[str, Any], str]:
    """Splits, trials and what was left out; manifests are not read."""
    from parvox.cli.prepare import summary
    from parvox.corpora.prepared import PreparedCorpus

    corpus = PreparedCorpus.load(path)
    info = corpus.info
    rows = [
        ("importer", info.importer),
        ("sources", ", ".join(info.sources) or "not stated"),
        ("licences", ", ".join(info.licences) or "not stated"),
        ("options", ", ".join(f"{name} {value}" for name, value in info.options.items())),
        ("fingerprint", info.fingerprint),
        ("prepared by", f"Parvox {info.parvox_version}"),
    ]
    told = {"kind": "corpus", "path": str(path), **dataclasses.asdict(info)}
    return told, "\n".join([summary(corpus), *aligned(rows)])


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
