"""Models of plain scalars: what JSON brings back of them is known without looking."""

from __future__ import annotations

from collections.abc import Mapping
from operator import contains
from typing import Any, Final

from pydantic import TypeAdapter

__all__ = ["Scalars"]

_TYPES: Final[Mapping[str, type]] = {"int": int, "bool": bool, "str": str}
"""By their names in pydantic's schemas. A float may be NaN, and is looked at."""

_MODEL: Final = frozenset({"type", "cls", "schema", "config", "metadata", "ref", "custom_init", "root_model", "frozen"})
_CONFIG: Final = frozenset(
    {
        *("title", "extra_fields_behavior", "from_attributes", "strict", "frozen"),
        *("validate_by_alias", "validate_by_name", "validate_default"),
    }
)
_FIELDS: Final = frozenset({"type", "fields", "model_name", "computed_fields"})
_FIELD: Final = frozenset({"type", "schema", "metadata", "frozen"})
_DEFAULT: Final = frozenset({"type", "schema", "default", "default_factory", "default_factory_takes_data"})
"""What pydantic's schemas may tell of a model, its configuration, its fields, one of them, and a default. Anything else
could change a value on its way: a serializer, a validator, an alias, a bound, a private attribute."""


class Scalars:
    """The fields of a model that has nothing but whole numbers, truth values and texts, without bounds."""

    def __init__(self, model: type, fields: Mapping[str, frozenset[type]]) -> None:
        self._model = model
        self._names = list(fields)
        self._types = list(fields.values())

    @classmethod
    def of(cls, adapter: TypeAdapter[Any]) -> Scalars | None:
        """Those that the adapter's model has; None for any other model."""
        schema: Any = adapter.core_schema
        if schema["type"] != "model" or not _MODEL.issuperset(schema):
            return None
        inner, config = schema["schema"], schema.get("config", {})
        if inner["type"] != "model-fields" or not (_FIELDS.issuperset(inner) and _CONFIG.issuperset(config)):
            return None
        if schema.get("custom_init") or inner.get("computed_fields") or config.get("extra_fields_behavior") == "allow":
            return None
        fields = {name: _types(field) for name, field in inner["fields"].items()}
        known = {name: types for name, types in fields.items() if types is not None}
        return cls(schema["cls"], known) if len(known) == len(fields) else None

    def has(self, value: object) -> bool:
        """Whether the value is such a model, each of its fields there and of its own type."""
        if type(value) is not self._model:
            return False
        held = value.__dict__
        return list(held) == self._names and all(map(contains, self._types, map(type, held.values())))


def _types(field: Mapping[str, Any]) -> frozenset[type] | None:
    if field["type"] != "model-field" or not _FIELD.issuperset(field):
        return None
    schema, found = field["schema"], set()
    if schema["type"] == "default" and _DEFAULT.issuperset(schema):
        schema = schema["schema"]
    if schema["type"] == "nullable" and schema.keys() == {"type", "schema"}:
        schema = schema["schema"]
        found.add(type(None))
    if schema["type"] not in _TYPES or schema.keys() != {"type"}:
        return None
    return frozenset({_TYPES[schema["type"]], *found})
