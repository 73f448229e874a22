"""What each key of the configuration takes, read off the structs, as data and in words."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache

import msgspec
from msgspec import inspect

from factoryd.core.config import Config
from factoryd.core.model import Data
from factoryd.core.units import format_duration, format_size


class Form(StrEnum):
    """How a value is written where TOML's own forms do not say enough."""

    PLAIN = "plain"
    DURATION = "duration"
    SIZE = "size"


class Shape(Data, frozen=True, kw_only=True):
    """What a value must be: its kind, its written form, and whether it may be None."""

    kind: inspect.Type
    form: Form
    optional: bool
    title: str
    meaning: str


class Key(Data, frozen=True, kw_only=True):
    """One key, for people: `default` is its TOML text, "" when the key is required or unset."""

    name: str
    type: str
    default: str
    required: bool
    meaning: str


class Section(Data, frozen=True, kw_only=True):
    """One table of the configuration file, for people; `title` as it is written there."""

    title: str
    meaning: str
    keys: tuple[Key, ...]


@cache
def find_schema() -> inspect.StructType:
    """Return the type of the whole configuration."""
    schema = inspect.type_info(Config)
    assert isinstance(schema, inspect.StructType)
    return schema


def find_shape(info: inspect.Type) -> Shape:
    """Return what stands behind the layers of metadata around a type."""
    hints: dict[str, str] = {}
    optional = False
    while True:
        match info:
            case inspect.Metadata():
                layers = msgspec.structs.asdict(info)
                for layer in ("extra", "extra_json_schema"):
                    found: Mapping[str, str] = layers[layer] or {}
                    hints = {**found, **hints}
                info = info.type
            case inspect.UnionType():
                optional = True
                info = next(each for each in info.types if not isinstance(each, inspect.NoneType))
            case _:
                return Shape(
                    kind=info,
                    form=Form(hints.get("form", "plain")),
                    optional=optional,
                    title=hints.get("title", ""),
                    meaning=hints.get("description", ""),
                )


def spell(shape: Shape) -> str:
    """Return in words what a value of this shape is: `a whole number from 1 to 20`."""
    match shape.kind:
        case _ if shape.title:
            return shape.title
        case inspect.IntType() | inspect.FloatType() as kind:
            return _spell_number(shape, kind)
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType() as kind:
            return f"text{_spell_length(kind.min_length, kind.max_length, 'characters')}"
        case inspect.LiteralType() | inspect.EnumType() as kind:
            return _spell_choice(kind)
        case inspect.VarTupleType() as kind:
            length = _spell_length(kind.min_length, kind.max_length, "entries")
            return f"a list{length}, each {spell(find_shape(kind.item_type))}"
        case inspect.DictType() as kind:
            return f"a table, each value {spell(find_shape(kind.value_type))}"
        case _:
            return "a table"


def describe() -> tuple[Section, ...]:
    """Return every section and key of the configuration, in the order of the file."""
    return tuple(_describe_sections())


def _spell_number(shape: Shape, kind: inspect.IntType | inspect.FloatType) -> str:
    low, high = kind.ge or 0, kind.le or 0
    match shape.form:
        case Form.DURATION:
            limits = f"from {format_duration(low)} to {format_duration(high)}"
            return f'a duration such as "30s", {limits}'
        case Form.SIZE:
            limits = f"from {format_size(int(low))} to {format_size(int(high))}"
            return f'a size such as "2G", {limits}' + (', or ""' if shape.optional else "")
        case Form.PLAIN:
            noun = "whole number" if isinstance(kind, inspect.IntType) else "number"
            return f"a {noun} from {low} to {high}"


def _spell_length(low: int | None, high: int | None, unit: str) -> str:
    if high is not None:
        return f" of {low or 0} to {high} {unit}"
    return ", not empty" if low else ""


def _spell_choice(kind: inspect.LiteralType | inspect.EnumType) -> str:
    values = kind.values if isinstance(kind, inspect.LiteralType) else [*kind.cls]
    return " or ".join(f'"{value}"' for value in values)


def _describe_sections() -> Iterator[Section]:
    for field in find_schema().fields:
        kind = find_shape(field.type).kind
        title = f"[{field.name}]"
        if isinstance(kind, inspect.VarTupleType):
            kind, title = find_shape(kind.item_type).kind, f"[[{field.name}]]"
        elif isinstance(kind, inspect.DictType):
            kind, title = find_shape(kind.value_type).kind, f"[{field.name}.NAME]"
        assert isinstance(kind, inspect.StructType)
        yield Section(
            title=title,
            meaning=(kind.cls.__doc__ or "").partition(": ")[2],
            keys=tuple(_describe_key(each) for each in kind.fields),
        )


def _describe_key(field: inspect.Field) -> Key:
    shape = find_shape(field.type)
    return Key(
        name=field.name,
        type=spell(shape),
        default="" if field.required else _spell_default(field, shape),
        required=field.required,
        meaning=shape.meaning,
    )


def _spell_default(field: inspect.Field, shape: Shape) -> str:
    value: object = field.default
    if value is msgspec.NODEFAULT:
        return "{ }"
    if value is None:
        return '""' if shape.form is Form.SIZE else ""
    if shape.form is Form.DURATION and isinstance(value, float):
        return f'"{format_duration(value)}"'
    return msgspec.json.encode(value).decode().replace(",", ", ")
