"""Plain YAML values into frozen dataclasses, strictly: every mistake of a file in one go, each with its key."""

import reprlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import LumiMoaiError, did_you_mean

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "empty"}


class Mistakes(list[str]):
    """Sentences about one file, each with the key it is about."""

    def note(self, key: str, sentence: str) -> None:
        """Add a *sentence* about *key*."""
        self.append(f"{key}: {sentence}" if key else sentence)


_BAD: Any = object()
_SHORT = reprlib.Repr()  # a whole list or mapping of a large file does not belong into a sentence
_SHORT.maxlevel, _SHORT.maxstring = 2, 80


def decode(kind: Any, value: object, key: str, mistakes: Mistakes) -> Any:
    """*value* as a *kind* (a type or annotation); what cannot be read is noted under *key* and left out."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _record(kind, value, key, mistakes)
    if origin in (Union, types.UnionType):
        return _optional(kind, value, key, mistakes)
    if origin is tuple:
        return _sequence(get_args(kind)[0], value, key, mistakes)
    if origin is Mapping or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return _mapping(get_args(kind)[1], value, key, mistakes)
    if origin is Literal:
        return _choice(get_args(kind), value, key, mistakes)
    return _scalar(kind, value, key, mistakes)


def _scalar(kind: type, value: object, key: str, mistakes: Mistakes) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    mistakes.note(key, f"{_SHORT.repr(value)} should be {_NAMES.get(kind, kind.__name__)}, it is {_name(value)}")
    return _BAD


def _name(value: object) -> str:
    names = {dict: "a mapping", list: "a list", **_NAMES}
    return names.get(type(value), type(value).__name__)


def _choice(choices: tuple[str, ...], value: object, key: str, mistakes: Mistakes) -> Any:
    if value in choices:
        return value
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    mistakes.note(key, f"{_SHORT.repr(value)} is none of {', '.join(choices)}{near}")
    return _BAD


def _optional(kind: Any, value: object, key: str, mistakes: Mistakes) -> Any:
    if value is None:
        return None
    (inner,) = [arg for arg in get_args(kind) if arg is not type(None)]
    return decode(inner, value, key, mistakes)


def _sequence(inner: Any, value: object, key: str, mistakes: Mistakes) -> Any:
    if not isinstance(value, list):
        mistakes.note(key, f"{_SHORT.repr(value)} should be a list, it is {_name(value)}")
        return _BAD
    return tuple(decode(inner, item, f"{key}[{place}]", mistakes) for place, item in enumerate(value))


def _mapping(inner: Any, value: object, key: str, mistakes: Mistakes) -> Any:
    if not isinstance(value, dict):
        mistakes.note(key, f"{_SHORT.repr(value)} should be a mapping, it is {_name(value)}")
        return _BAD
    named = is_dataclass(inner) and "name" in {f.name for f in fields(inner)}
    decoded = {}
    for name, item in value.items():
        if not isinstance(name, str):
            mistakes.note(key, f"the key {name!r} should be text, it is {_name(name)}; put it in quotes")
            continue
        # A record in a mapping gets its name from its key.
        whole = {"name": name, **item} if named and isinstance(item, dict) else item
        decoded[name] = decode(inner, whole, f"{key}.{name}" if key else name, mistakes)
    return decoded


def _record(kind: Any, value: object, key: str, mistakes: Mistakes) -> Any:
    if not isinstance(value, dict):
        mistakes.note(key, f"{_SHORT.repr(value)} should be a mapping, it is {_name(value)}")
        return _BAD
    hints = get_type_hints(kind)
    known = {written: f for f in fields(kind) if (written := f.metadata.get("key", f.name)) is not None}
    for name in value:
        if name not in known:
            mistakes.note(key, f"unknown key {name!r}{did_you_mean(str(name), known)}")
    values = {
        f.name: _field(f, hints[f.name], value[written], f"{key}.{written}" if key else written, mistakes)
        for written, f in known.items()
        if written in value
    }
    for written, f in known.items():
        if written not in value and f.default is MISSING and f.default_factory is MISSING:
            mistakes.note(key, f"missing key {written!r}")
            values[f.name] = _BAD
    if any(item is _BAD for item in values.values()):
        return _BAD
    return _build(kind, values, key, mistakes)


def _field(f: Field, hint: Any, value: object, key: str, mistakes: Mistakes) -> Any:
    parse = f.metadata.get("parse")
    if parse is None:
        return decode(hint, value, key, mistakes)
    if not isinstance(value, str | int) or isinstance(value, bool):
        mistakes.note(key, f"{_SHORT.repr(value)} should be text, it is {_name(value)}")
        return _BAD
    try:
        return parse(str(value))
    except LumiMoaiError as error:
        mistakes.note(key, str(error))
        return _BAD


def _build(kind: Any, values: dict[str, Any], key: str, mistakes: Mistakes) -> Any:
    try:
        return kind(**values)
    except LumiMoaiError as error:  # values check themselves at birth
        mistakes.note(key, str(error))
        return _BAD
