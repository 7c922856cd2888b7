"""Reading what users downloaded: JSON, CSV and the constants of Python files, which are never run."""

import ast
import csv
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deepgen.errors import DataError


def read_text(path: Path, newline: str | None = None) -> str:
    """A UTF-8 file (a byte-order mark is dropped); `newline` as `open` has it. Raises DataError that says how to
    get it."""
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; `deepgen bench prepare` says where to get it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error


def read_json(path: Path) -> Any:
    """Raises DataError with the place of the first mistake."""
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def read_jsonl(path: Path) -> list[Any]:
    """One value a line; empty lines are skipped. Raises DataError with the line."""
    rows = []
    # Not splitlines: text in JSON may hold U+2028 and its like as they are.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON ({error})") from error
    return rows


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows by column name. Raises DataError where one of `columns` is missing or a row is short."""
    reader = csv.DictReader(io.StringIO(read_text(path, newline=""), newline=""), strict=True)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}")
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error
    for number, row in enumerate(rows, 1):
        if None in row.values() or None in row:
            raise DataError(f"{path}: row {number} has another number of cells than the header")
    return rows


def require(row: Any, where: str, **kinds: type | tuple[type, ...]) -> Any:
    """`row`, once it is a mapping whose keys have these types. Raises DataError that names `where` and the key."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    for key, kind in kinds.items():
        if key not in row:
            raise DataError(f"{where}: no {key!r}")
        if not isinstance(row[key], kind):
            raise DataError(f"{where}: {key!r} is {type(row[key]).__name__}, which was not expected")
    return row


def sha256_of(path: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Of the text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def warn_of_changes(path: Path, texts: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Warn where a judge's words in a user's copy are not the published ones. known: name → sha256."""
    changed = [name for name, digest in known.items() if text_sha256(texts[name]) != digest]
    if changed:
        told = f"{path}: not as published: {', '.join(changed)}; do not compare scores"
        warnings.warn(told, stacklevel=3)


def module_constants(path: Path) -> dict[str, Any]:
    """Names that a Python file binds to literals at its top level, without running it; sums of literals count."""
    constants: dict[str, Any] = {}
    for node in _parse(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            constants |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return constants


def fstring(path: Path, variable: str, values: Mapping[str, str], function: str | None = None) -> str:
    """The f-string that a Python file assigns to `variable`, filled without running it.

    `values`: the source of each {expression}, such as "item['Prompt']", → its text. `function`: look only in it.
    Raises DataError where there is no such f-string, or one needs an expression that `values` lacks.
    """
    tree: ast.AST = _parse(path)
    if function is not None:
        named = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
        if not named:
            raise DataError(f"{path}: no function {function}")
        tree = named[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == variable for target in node.targets
        ):
            if isinstance(node.value, ast.JoinedStr):
                return fill(node.value, values, f"{path}: {variable}")
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return node.value.value
    raise DataError(f"{path}: no f-string named {variable}")


def fill(node: ast.JoinedStr, values: Mapping[str, str], where: str) -> str:
    """An f-string's text with each plain {expression} replaced. Raises DataError for an unknown one."""
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
            source = ast.unparse(part.value)
            if source not in values:
                raise DataError(f"{where} needs {source}, which this version does not know")
            parts.append(values[source])
        else:
            raise DataError(f"{where} formats a value, which is not understood")
    return "".join(parts)


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(read_text(path))
    except SyntaxError as error:
        raise DataError(f"{path}: not Python ({error})") from error
