"""The weights that come inside the package: where they are, and whether they are intact."""

import hashlib
from importlib import resources
from pathlib import Path

from deepgen.errors import InputError

SHIPPED = {"nano": "nano", "deepgen-nano": "nano"}
SUMS = "SHA256SUMS"


def weights_root() -> Path:
    """The folder of the shipped weights."""
    return Path(str(resources.files("deepgen"))) / "weights"


def resolve_model(model: str | Path) -> tuple[str, str | Path]:
    """(name for records, where it is) of a shipped model, a checkpoint's path or a name on the hub.

    Nothing is fetched here. Raises InputError.
    """
    folder = Path(model).expanduser()
    if str(model) in SHIPPED:
        name = SHIPPED[str(model)]
        shipped = weights_root() / name
        if not (shipped / "model_index.json").is_file():
            raise InputError(
                f"the weights of {name!r} are not in this installation; "
                "take a complete clone or wheel, or give a checkpoint folder"
            )
        return f"deepgen-{name}", shipped
    if folder.exists():
        return folder.resolve().name, folder
    if "/" in str(model):
        # Imported only for a name that may be the hub's: it takes seconds, and a mistyped name should not.
        from deepgen.checkpoints.hub import is_hub_name

        if is_hub_name(str(model)):
            return str(model), str(model)
    names = ", ".join(SHIPPED)
    raise InputError(
        f"unknown model {str(model)!r}: no such file or folder, not a shipped model ({names}), and not a name on the "
        "hub (org/name)"
    )


def _weight_files(root: Path) -> list[Path]:
    skipped = {SUMS, "__init__.py"}
    files = (p for p in root.rglob("*") if p.is_file() and p.name not in skipped and p.suffix != ".pyc")
    return sorted(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(root: Path | None = None) -> Path:
    """Write the manifest of every shipped file in `sha256sum`'s format; run after the weights change."""
    root = root or weights_root()
    lines = [f"{_sha256(path)}  {path.relative_to(root).as_posix()}\n" for path in _weight_files(root)]
    manifest = root / SUMS
    manifest.write_text("".join(lines), encoding="utf-8")
    return manifest


def check_sums(root: Path | None = None) -> list[str]:
    """What is wrong with the shipped files, a line each; empty when all are there, unchanged and listed."""
    root = root or weights_root()
    manifest = root / SUMS
    if not manifest.is_file():
        return [f"{manifest}: missing, the weights cannot be checked"]
    listed = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    present = {path.relative_to(root).as_posix(): path for path in _weight_files(root)}
    problems = [f"{name}: missing" for name in listed if name not in present]
    problems += [f"{name}: not listed in {SUMS}" for name in present if name not in listed]
    problems += [
        f"{name}: changed or damaged"
        for name, digest in listed.items()
        if name in present and _sha256(present[name]) != digest
    ]
    return problems
