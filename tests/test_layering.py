"""Data flows one way: a package imports only what stands to its left in docs/architecture.md."""

import ast
from pathlib import Path

import deepgen

ROOT = Path(deepgen.__file__).parent
ORDER = [
    *["errors", "config", "flow", "model", "checkpoints", "pipeline", "world", "scorers", "data", "rewards"],
    *["train", "evaluation", "serve", "speed", "cli"],
]
DATA_ONLY = {"weights", "configs"}


def imported_modules(source: str, package: str) -> set[str]:
    """Full names of everything that a module of `package` imports, wherever the import stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def wrong_imports(source: str, package: str) -> list[str]:
    """Imports that point to the right of `package` (such as `deepgen.model`) in the order."""
    own = ORDER.index(package.split(".")[1])
    ours = {name for name in imported_modules(source, package) if name.startswith("deepgen.")}
    parts = {name: name.split(".")[1] for name in ours - {"deepgen.__version__"}}
    return sorted(name for name, part in parts.items() if part not in ORDER or ORDER.index(part) > own)


def source_files() -> list[Path]:
    """All but the package's own entry points, which may import anything."""
    return [path for path in ROOT.rglob("*.py") if path not in (ROOT / "__init__.py", ROOT / "__main__.py")]


def package_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    parents = relative.parent.parts
    return ".".join(["deepgen", *(parents or (relative.stem,))])


def test_every_import_points_to_the_left():
    wrong = {}
    for path in source_files():
        package = package_of(path)
        if package.split(".")[1] in DATA_ONLY:
            continue
        if found := wrong_imports(path.read_text(encoding="utf-8"), package):
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}


def test_every_package_has_a_place_in_the_order():
    packages = {package_of(path).split(".")[1] for path in source_files()}
    assert packages - DATA_ONLY <= set(ORDER)


def test_the_order_is_the_one_in_the_documentation():
    text = (ROOT.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert " → ".join(ORDER) in text


def test_an_import_to_the_right_is_found_wherever_it_stands():
    inside = "def f():\n    from deepgen.cli import main\n"
    relative = "from ..train import loop\n"
    assert wrong_imports(inside, "deepgen.model") == ["deepgen.cli.main"]
    assert wrong_imports(relative, "deepgen.model") == ["deepgen.train.loop"]
    assert wrong_imports("from deepgen import __version__, errors\n", "deepgen.model") == []


def test_the_model_and_the_mathematics_know_nothing_of_distribution_or_adapters():
    for path in [*ROOT.glob("model/*.py"), *ROOT.glob("flow/*.py")]:
        names = imported_modules(path.read_text(encoding="utf-8"), package_of(path))
        assert not {n for n in names if n.startswith(("torch.distributed", "peft"))}, path
