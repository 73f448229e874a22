"""From a TOML document to a `Config`, telling every mistake, and back."""

import difflib
import re
from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec import inspect

from factoryd.core.config import Config
from factoryd.core.config_check import Mistakes, check, quote
from factoryd.core.config_schema import Form, Shape, find_schema, find_shape, spell
from factoryd.core.units import format_duration, format_size, parse_duration, parse_size


def parse_config(document: Mapping[str, object], file: str) -> Config:
    """Return the configuration a TOML document holds; `file` is what its mistakes are told with.

    Defaults are filled in and the heartbeat's interval is the effective one. Raise
    `ConfigInvalid` with every mistake of the document, one `FILE: key: reason` each.
    """
    mistakes = Mistakes(file)
    config = read_config(document, mistakes)
    mistakes.raise_any()
    return config


def read_config(document: Mapping[str, object], mistakes: Mistakes) -> Config:
    """Return what can be read of a document, adding what cannot to `mistakes`.

    Where there is a mistake a meaningless value stands in, so that the rest can be checked.
    """
    config = _read_struct(document, find_schema(), "", mistakes)
    assert isinstance(config, Config)
    config = _complete(config)
    check(config, mistakes)
    return config


def to_document(config: Config) -> dict[str, object]:
    """Return the TOML document that `parse_config` reads as an equal `Config`."""
    return _write_struct(config, find_schema())


def _complete(config: Config) -> Config:
    """Fill in what depends on other keys."""
    beat = config.heartbeat
    quarter = round(beat.stale_after * 1000) // 4 / 1000
    replace = msgspec.structs.replace
    return replace(
        config,
        heartbeat=replace(beat, interval=min(beat.interval, quarter)),
        sources=tuple(replace(each, name=each.name or each.path) for each in config.sources),
        agents={
            role: replace(agent, name=agent.name or role) for role, agent in config.agents.items()
        },
    )


def _read(value: object, info: inspect.Type, key: str, mistakes: Mistakes) -> object:
    """Return the value that `info` asks for; else a stand-in, with a mistake at `key` or below."""
    shape = find_shape(info)
    try:
        match shape.kind:
            case inspect.StructType() as kind:
                return _read_struct(_as_table(value), kind, key, mistakes)
            case inspect.DictType() as kind:
                return _read_dict(_as_table(value), kind, key, mistakes)
            case inspect.VarTupleType() as kind:
                return _read_list(value, kind, key, mistakes)
            case _:
                return _read_scalar(value, shape)
    except ValueError:
        mistakes.add(key, f"must be {spell(shape)}, not {_show(value)}")
        return _stand_in(shape)


def _as_table(value: object) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value)
    raise ValueError


def _read_list(
    value: object, kind: inspect.VarTupleType, key: str, mistakes: Mistakes
) -> tuple[object, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else None
    if items is None or not _fits(len(items), kind.min_length, kind.max_length):
        raise ValueError
    return tuple(
        _read(item, kind.item_type, f"{key}[{index}]", mistakes) for index, item in enumerate(items)
    )


def _read_struct(
    table: Mapping[str, object], kind: inspect.StructType, key: str, mistakes: Mistakes
) -> msgspec.Struct:
    names = [field.name for field in kind.fields]
    for name in table:
        if name not in names:
            close = difflib.get_close_matches(name[:100], names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(names)}"
            mistakes.add(_join(key, name), f"is unknown: {hint}")
    values: dict[str, object] = {}
    for field in kind.fields:
        place = _join(key, field.name)
        if field.name in table:
            values[field.name] = _read(table[field.name], field.type, place, mistakes)
        elif field.required:
            shape = find_shape(field.type)
            mistakes.add(place, f"is missing: it takes {spell(shape)}")
            values[field.name] = _stand_in(shape)
    return kind.cls(**values)


def _read_dict(
    table: Mapping[str, object], kind: inspect.DictType, key: str, mistakes: Mistakes
) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        place = _join(key, name)
        _read(name, kind.key_type, place, mistakes)
        found[name] = _read(value, kind.value_type, place, mistakes)
    return found


def _read_scalar(value: object, shape: Shape) -> object:
    """Return the value of a leaf; raise `ValueError` when it is not of this shape."""
    match shape.kind:
        case inspect.StrType() as kind if isinstance(value, str) and _is_clean(value):
            if _fits(len(value), kind.min_length, kind.max_length) and re.search(
                kind.pattern or "", value
            ):
                return value
        case inspect.BoolType() if isinstance(value, bool):
            return value
        case inspect.IntType() | inspect.FloatType() as kind:
            return _read_number(value, shape, kind)
        case inspect.LiteralType() as kind if isinstance(value, str) and value in kind.values:
            return value
        case inspect.EnumType() as kind:
            return kind.cls(value)
        case _:
            pass
    raise ValueError


def _read_number(
    value: object, shape: Shape, kind: inspect.IntType | inspect.FloatType
) -> int | float | None:
    match shape.form, value:
        case Form.SIZE, "" if shape.optional:
            return None
        case Form.SIZE, str():
            number: int | float = parse_size(value)
        case Form.DURATION, str():
            number = parse_duration(value)
        case Form.PLAIN, int() if not isinstance(value, bool):
            number = value
        case Form.PLAIN, float() if isinstance(kind, inspect.FloatType):
            number = value
        case _:
            raise ValueError
    if not _fits(number, kind.ge, kind.le):
        raise ValueError
    return number if isinstance(kind, inspect.IntType) else float(number)


def _fits(number: float, low: float | None, high: float | None) -> bool:
    """Say whether a number is within bounds; one that is not a number is not."""
    return (low is None or number >= low) and (high is None or number <= high)


def _is_clean(text: str) -> bool:
    """Say whether text can be part of a path or a command."""
    return "\0" not in text and not re.search("[\ud800-\udfff]", text)


_BLANKS: dict[type[inspect.Type], object] = {
    inspect.BoolType: False,
    inspect.DictType: {},
    inspect.FloatType: 0.0,
    inspect.IntType: 0,
    inspect.StrType: "",
    inspect.VarTupleType: (),
}


def _stand_in(shape: Shape) -> object:
    """Return some value of a shape, for the place of one that could not be read."""
    match shape.kind:
        case _ if shape.optional:
            return None
        case inspect.StructType() as kind:
            required = [field for field in kind.fields if field.required]
            return kind.cls(**{each.name: _stand_in(find_shape(each.type)) for each in required})
        case inspect.LiteralType() as kind:
            return kind.values[0]
        case inspect.EnumType() as kind:
            return next(iter(kind.cls))
        case kind:
            return _BLANKS[type(kind)]


def _show(value: object) -> str:
    """Return a value as a mistake shows it: one short line, whatever it is."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if abs(value) < 1 << 64 else "a huge number"
        case float():
            return str(value)
        case str():
            return quote(value, always=True)
        case list() | tuple():
            entries = len(cast("list[object]", value))
            return f"a list of {entries}" if entries else "an empty list"
        case Mapping():
            return "a table"
        case _:
            return f"a {type(value).__name__}"


def _join(key: str, name: str) -> str:
    return f"{key}.{quote(name)}" if key else quote(name)


def _write_struct(value: msgspec.Struct, kind: inspect.StructType) -> dict[str, object]:
    values: dict[str, object] = {field.name: getattr(value, field.name) for field in kind.fields}
    written = {
        field.name: _write(values[field.name], find_shape(field.type)) for field in kind.fields
    }
    return {name: each for name, each in written.items() if each is not None}


def _write(value: object, shape: Shape) -> object:
    """Return the TOML form of a value; None for one that is left out."""
    match shape.kind:
        case inspect.StructType() as kind if isinstance(value, msgspec.Struct):
            return _write_struct(value, kind)
        case inspect.DictType() as kind:
            table = cast("dict[str, object]", value)
            item = find_shape(kind.value_type)
            return {name: _write(each, item) for name, each in table.items()}
        case inspect.VarTupleType() as kind:
            item = find_shape(kind.item_type)
            return [_write(each, item) for each in cast("tuple[object, ...]", value)]
        case inspect.EnumType():
            return str(value)
        case inspect.FloatType() if shape.form is Form.DURATION and isinstance(value, float):
            return format_duration(value)
        case inspect.IntType() if shape.form is Form.SIZE:
            return format_size(value) if isinstance(value, int) else ""
        case _:
            return value
