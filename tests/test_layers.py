"""The house rule of imports: data goes one way, and the runtime is free of torch."""

import ast
from pathlib import Path

import pytest

import parvox

ROOT = Path(parvox.__file__).parent
SHARED = {"errors", "files", "arrays", "processors", "progress", "registry", "settings", "tables", "audio"}
# What each room may import besides itself and the shared ground, whenever it does so.
ALLOWED = {
    "corpora": set(),
    "data": {"corpora"},
    "models": set(),
    "losses": set(),
    "distillation": {"data", "models", "losses"},
    "runtime": set(),
    "evaluation": {"corpora", "data", "models", "runtime", "training"},
    "training": {"corpora", "data", "models", "losses", "distillation", "evaluation", "runtime"},  # to teach from files
    "export": {"corpora", "data", "models", "training", "evaluation", "runtime"},
    "demo": {"corpora", "data", "models", "training", "evaluation", "runtime", "export"},
}
HEAVY = {"torch", "lhotse", "lightning_fabric", "scipy", "sklearn", "matplotlib", "onnx"}


def modules():
    return sorted(path for path in ROOT.rglob("*.py"))


def room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path: Path, *, only_top: bool = False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if only_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_upwards(path):
    here = room(path)
    if here in ("cli", "__init__", "__main__"):
        return
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("parvox.")} - {"__version__"}
    allowed = SHARED if here in SHARED else SHARED | ALLOWED[here] | {here}
    assert rooms <= allowed, f"{path.name} imports {sorted(rooms - allowed)}"


@pytest.mark.parametrize(
    "path", [p for p in modules() if room(p) in SHARED | {"runtime"}], ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_runtime_and_the_shared_ground_need_the_base_install_alone(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & HEAVY


def test_measures_are_pure():
    """Training imports them, so they may import nothing of the rooms above."""
    rooms = {name.split(".")[1] for name in imported(ROOT / "evaluation" / "measures.py") if name.startswith("parvox.")}
    assert rooms <= SHARED
