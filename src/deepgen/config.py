"""Run configuration: YAML text, dotted overrides, validation by pydantic, and the way back to YAML.

A configuration is one complete YAML file. Packaged ones live under `deepgen/configs` and are named by their
path there without the suffix (`train/nano`). Unknown keys are errors that name the key's path.
"""

import copy
import difflib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from deepgen.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration model: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two differences: `5e-5` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"key {key!r} is given twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# PyYAML follows YAML 1.1, where a number needs a dot to take an exponent; people write 5e-5.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of one YAML document; `source` names it in errors. Raises ConfigError."""
    try:
        return yaml.load(text, Loader=_Loader)  # _Loader is a SafeLoader: no Python objects
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def packaged_configs() -> list[str]:
    """Names of the configurations that come with the package, sorted."""
    root = Path(str(resources.files("deepgen"))) / "configs"
    return sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml"))


def find_config(name: str | Path) -> Path:
    """The file behind a path or a packaged name. Raises ConfigError with what there is."""
    path = Path(name)
    if path.is_file():
        return path
    packaged = packaged_configs()
    stem = str(name).removesuffix(".yaml")
    if stem in packaged:
        return Path(str(resources.files("deepgen"))) / "configs" / f"{stem}.yaml"
    known = ", ".join(packaged) or "none"
    raise ConfigError(f"no configuration {str(name)!r}: not a file, and not one of the packaged ({known})")


def find_run(name: str | Path) -> Path:
    """`find_config`, where `smoke` may stand for `train/smoke` and `rl_smoke` for `rl/rl_smoke`."""
    try:
        return find_config(name)
    except ConfigError as error:
        for folder in ("train", "rl"):
            try:
                return find_config(f"{folder}/{name}")
            except ConfigError:
                continue
        raise error


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one `a.b=value` in `data`, in place; the value is YAML, a number in the path indexes a list.

    Mappings on the way that do not exist yet are made, so that a key left to its default can be overridden;
    whether the key exists at all is validation's question. Raises ConfigError.
    """
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"override {override!r} must have the form key.sub=value")
    target: Any = data
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth]) or "the configuration"
        index: Any = key
        if isinstance(target, list):
            if not key.isdecimal() or int(key) >= len(target):
                raise ConfigError(f"override {override!r}: {where} has {len(target)} items, no {key!r}")
            index = int(key)
        elif not isinstance(target, dict):
            raise ConfigError(f"override {override!r}: {where} is a single value, it has no key {key!r}")
        if depth == len(keys) - 1:
            target[index] = parse_yaml(text, f"override {override!r}")
        elif isinstance(target, dict):
            # An absent or empty section (`a:` reads as null) becomes a mapping.
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            target = target[index]


def load_config(
    model_cls: type[ConfigT], source: str | Path | dict[str, Any], overrides: Sequence[str] = ()
) -> ConfigT:
    """A validated configuration from a YAML file, a packaged name or a mapping, with dotted overrides.

    Raises ConfigError, one line: the file, then each wrong key's path with what is wrong.
    """
    if isinstance(source, dict):
        data, name = copy.deepcopy(source), "configuration"
    else:
        path = find_config(source)
        name = str(source)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        loaded = parse_yaml(text, name)
        data = {} if loaded is None else loaded
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: the top level must be a mapping of keys, not {type(data).__name__}")
    for override in overrides:
        apply_override(data, override)
    try:
        return model_cls.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(model_cls, dict(item)) for item in error.errors())
        raise ConfigError(f"{name}: {problems}") from None


def _explain(model_cls: type[BaseModel], item: dict[str, Any]) -> str:
    location = item["loc"]
    path = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        hint = _nearest_key(model_cls, location)
        return f"{path}: unknown key" + (f", did you mean {hint!r}?" if hint else "")
    if item["type"] == "missing":
        return f"{path}: must be given"
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    # What is wrong with a section as a whole is in the message; all its keys would bury it.
    got = "" if isinstance(item["input"], dict | BaseModel) else f" (got {item['input']!r})"
    return f"{path}: {message}{got}" if path else message


def _nearest_key(model_cls: type[BaseModel], location: tuple[Any, ...]) -> str | None:
    """The known key most like the unknown last one, where the path to it runs through plain models."""
    current: Any = model_cls
    for part in location[:-1]:
        field = current.model_fields.get(part)
        current = field.annotation if field else None
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return None
    return next(iter(difflib.get_close_matches(str(location[-1]), current.model_fields, n=1)), None)


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML text, every default resolved, in field order; loads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
