"""What a configuration says wrongly, and what it should say, in words for its author."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgspec.inspect import Type


def suggestion(key: str, known: list[str]) -> str:
    """Name the known key that is most like an unknown one, or all that are known."""
    from difflib import get_close_matches

    close = get_close_matches(key, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(known)}"


def shown(value: object) -> str:
    """Quote what stands in the file, shortened."""
    match value:
        case str():
            return f'"{value[:60]}"'
        case bool():
            return str(value).lower()
        case dict():
            return "a table"
        case _:
            return str(value)[:60]


def allowed(kind: Any) -> str:
    """Say what a field takes, by its annotation."""
    from msgspec.inspect import type_info

    return _words_of(type_info(kind))


def _words_of(kind: Type) -> str:
    """A field's type in words, with its bounds and choices."""
    from msgspec import inspect

    match kind:
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.IntType() | inspect.FloatType():
            noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            lower = f"above {kind.gt:g} and up" if kind.gt is not None else f"from {kind.ge}"
            return f"{noun} {lower} to {kind.le}"
        case inspect.BoolType():
            return "true or false"
        case inspect.VarTupleType(item_type=item):
            return f"a list, each item {_words_of(item)}"
        case inspect.UnionType(types=types):  # only "something or not given"
            return _words_of(next(each for each in types if not isinstance(each, inspect.NoneType)))
        case inspect.CustomType():
            return "a path in quotes"
        case _:
            return "text in quotes"
