"""Reading YAML without its surprises; the only place that imports the YAML library."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ..errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_SCALARS = [
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?[0-9]{1,18}|0x[0-9a-fA-F]{1,15}", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
]
_VALUES = {
    "null": lambda _: None,
    "bool": lambda text: text == "true",
    "int": lambda text: int(text, 16 if "x" in text else 10),
    "float": float,
}
_DEEP = 5000
"""Brackets and dashes from which on a text might nest so deep that the C parser, which recurses, would crash."""


class _Plain:
    """YAML 1.2 scalars only: `12:00:00` and `no` stay words, `010` is ten, and a key comes once."""

    yaml_implicit_resolvers: ClassVar[dict] = {}
    yaml_constructors: ClassVar[dict] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: list[Any] = []
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            key = self.construct_object(key_node)  # type: ignore[attr-defined]
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)  # type: ignore[misc]


class _Fast(_Plain, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where PyYAML has it
    pass


class _Careful(_Plain, yaml.SafeLoader):
    """The same in Python, which notices when it recurses too deep."""


def _construct(kind: str, pattern: re.Pattern) -> Any:
    """Reads one scalar; what is written with an explicit tag (`!!int x`) must look like it as well."""

    def construct(loader: Any, node: Any) -> Any:
        text = loader.construct_scalar(node)
        if not pattern.match(text):
            raise yaml.constructor.ConstructorError(None, None, f"{text[:40]!r} is no {kind}", node.start_mark)
        return _VALUES[kind](text)

    return construct


def _teach(loader: Any) -> None:
    for kind, text, first in _SCALARS:
        pattern = re.compile(f"(?:{text})\\Z")
        loader.add_implicit_resolver(_TAG + kind, pattern, first)
        loader.add_constructor(_TAG + kind, _construct(kind, pattern))
    loader.add_constructor(_TAG + "str", yaml.SafeLoader.construct_yaml_str)
    loader.add_constructor(_TAG + "seq", yaml.SafeLoader.construct_yaml_seq)
    loader.add_constructor(_TAG + "map", yaml.SafeLoader.construct_yaml_map)
    loader.add_constructor(None, yaml.SafeLoader.construct_undefined)  # no dates, no sets, no objects


_teach(_Fast)
_teach(_Careful)


def read(path: Path) -> Any:
    """The plain values in the YAML file at *path*.

    Raises ConfigError when it cannot be opened, is not UTF-8, is not YAML, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loader = _Careful if sum(map(text.count, "[{-?")) > _DEEP else _Fast
        return yaml.load(text, Loader=loader)  # noqa: S506  # both are SafeLoaders: they build plain values only
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
