"""The values in a YAML text, where it is one that a manifest may be."""

from __future__ import annotations

from typing import Any

import yaml

from asrkd.data.manifest_items import LONGEST_INTEGER

MOST_FIELDS = 10_000  # of an object
LONGEST_YAML_NUMBER = 100  # characters; Python's int() takes quadratic time, in base 60 too


class YamlError(Exception):
    """A text that is no YAML, or none of a manifest; the message is the reason, in one line."""


def load_yaml(text: str) -> Any:
    """The value of a YAML text, of plain types. YamlError where it is damaged, or made to take time or memory."""
    try:
        return yaml.load(text, Loader=_YamlLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(" ".join(str(error).split())) from None


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader, which makes plain values only, that refuses a key that is given twice and long numbers."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # of values that do not fit a tag
            raise yaml.YAMLError(_misfit(node)) from None

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError(_misfit(node))
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"the key {next(key for key in keys if keys.count(key) > 1)} twice")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: Any) -> None:
        """Refuses the keys `<<` of keys `<<`, which multiply."""
        super().flatten_mapping(node)
        if len(node.value) > MOST_FIELDS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: more than {MOST_FIELDS} fields")

    def construct_integer(self, node: Any) -> int | float:
        """A number that Python prints, and computes in linear time."""
        if isinstance(node.value, str) and len(node.value) > LONGEST_YAML_NUMBER:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
        value: int = self.construct_yaml_int(node)
        return value if abs(value) < 10**LONGEST_INTEGER else float(value)


_YamlLoader.add_constructor("tag:yaml.org,2002:int", _YamlLoader.construct_integer)


def _misfit(node: Any) -> str:
    kind = str(node.tag).rpartition(":")[2]
    value = f"the text {node.value[:40]!r}" if isinstance(node.value, str) else "a list or an object"
    return f"line {node.start_mark.line + 1}: {value}, which is no {kind:.20}"
