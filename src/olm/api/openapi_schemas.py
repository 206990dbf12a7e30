"""JSON schemas of wire structs, for the OpenAPI document. Pure.

`msgspec.json.schema_components` cannot do it: a field that keeps its JSON as it came (`Raw`) and may be absent has a
default without a JSON form, which msgspec refuses to describe. So its public inspection is walked here instead; what the
structs have in common is told once (request fields may be null, answers leave defaults out), not by a default each.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import inspect as mi

__all__ = ["Schema", "SchemaBook"]

Schema = dict[str, object]

_PREFIXES: Final = {
    "schemas": "",
    "schemas_operations": "",
    "openapi_table": "",
    "schemas_openai": "OpenAI",
}
"""Before a struct's name, by its module: several APIs have a `Message`. Other modules: their own name."""

_PLAIN: Final[Mapping[type[mi.Type], Schema]] = {
    mi.AnyType: {},
    mi.RawType: {},
    mi.CustomType: {},
    mi.NoneType: {"type": "null"},
    mi.BoolType: {"type": "boolean"},
    mi.BytesType: {"type": "string", "contentEncoding": "base64"},
}


class SchemaBook:
    """Collects the schemas of structs, and of those they name, under names that do not collide."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def ref(self, struct: type[msgspec.Struct]) -> Schema:
        """Name a struct's schema and see that it is among the components."""
        info = mi.type_info(struct)
        assert isinstance(info, mi.StructType), "a struct is inspected as one"
        return self._struct_ref(info)

    def _struct_ref(self, info: mi.StructType) -> Schema:
        name = _component_name(info.cls)
        if name not in self.components:
            self.components[name] = {}  # structs may name themselves
            self.components[name] = self._struct(info)
        return {"$ref": f"#/components/schemas/{name}"}

    def _struct(self, info: mi.StructType) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        if info.tag_field is not None:
            properties[info.tag_field] = {"const": info.tag}
            required.append(info.tag_field)
        for field in info.fields:
            properties[field.encode_name] = self._schema(field.type)
            if field.required:
                required.append(field.encode_name)
        schema: Schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        text = info.cls.__dict__.get("__doc__")
        if isinstance(text, str):
            schema["description"] = inspect.cleandoc(text)
        return schema

    def _schema(self, info: mi.Type) -> Schema:
        plain = _PLAIN.get(type(info))
        if plain is not None:
            return dict(plain)
        match info:
            case mi.StructType():
                return self._struct_ref(info)
            case mi.Metadata():
                return self._schema(info.type)
            case mi.IntType():
                return _bounded({"type": "integer"}, info)
            case mi.FloatType():
                return _bounded({"type": "number"}, info)
            case mi.StrType():
                return {"type": "string"}
            case mi.LiteralType():
                return {"enum": list(info.values)}
            case mi.ListType() | mi.VarTupleType():
                return {"type": "array", "items": self._schema(info.item_type)}
            case mi.TupleType():
                items = [self._schema(item) for item in info.item_types]
                fixed: Schema = {"type": "array", "minItems": len(items), "maxItems": len(items)}
                return {**fixed, "prefixItems": items} if items else fixed
            case mi.DictType():
                return {"type": "object", "additionalProperties": self._schema(info.value_type)}
            case mi.UnionType():
                return self._union(info.types)
        # A new kind of field in a wire struct: whoever adds it says here how it is described.
        raise TypeError(f"a field of kind {type(info).__name__} has no description")

    def _union(self, members: Iterable[mi.Type]) -> Schema:
        schemas = [self._schema(member) for member in members]
        if {} in schemas:
            return {}
        if all(set(schema) == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}


def _bounded(schema: Schema, info: mi.IntType | mi.FloatType) -> Schema:
    """64-bit bounds say nothing to a reader, and readers in JavaScript cannot hold them."""
    for key, bound in (("minimum", info.ge), ("maximum", info.le)):
        if bound is not None and abs(bound) < 1 << 53:
            schema[key] = bound
    return schema


def _component_name(struct: type) -> str:
    module = struct.__module__.rpartition(".")[2]
    prefix = _PREFIXES.get(module, module.removeprefix("schemas_").capitalize())
    name = struct.__name__
    return name if name.startswith(prefix) else prefix + name
