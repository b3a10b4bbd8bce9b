"""`k=v` strings become a plug-in function's annotated keywords; a wrong name or value is answered with what exists."""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from harness.errors import UserError, choices

Option = inspect.Parameter


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The keywords a user may set, by name: every named parameter that has a default, or is keyword-only."""
    named = (Option.POSITIONAL_OR_KEYWORD, Option.KEYWORD_ONLY)
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in named and (parameter.kind is Option.KEYWORD_ONLY or parameter.default is not Option.empty)
    }


def positional_names(function: Callable[..., Any]) -> list[str]:
    """The parameters that the harness itself must pass: positional ones without a default."""
    positional = (Option.POSITIONAL_ONLY, Option.POSITIONAL_OR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in positional and parameter.default is Option.empty
    ]


def spell_type(wanted: Any) -> str:
    """A type as a person would write it: `int`, `train | test`, `int,int,...`."""
    if get_origin(wanted) is Literal:
        return " | ".join(map(str, get_args(wanted)))
    if get_origin(wanted) in (Union, types.UnionType):
        return " | ".join(spell_type(arm) for arm in get_args(wanted))
    if get_origin(wanted) is tuple:
        return f"{spell_type(get_args(wanted)[0])},..."
    if wanted is type(None):
        return "none"
    return getattr(wanted, "__name__", str(wanted))


def read_value(text: str, wanted: Any) -> Any:
    """Read `text` as the annotated type. Raises ValueError when it cannot be read."""
    if wanted in (str, Any, Option.empty):
        return text
    if wanted is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]
    if wanted in (int, float):
        return wanted(text)
    if wanted is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if get_origin(wanted) is Literal:
        by_spelling = {str(value): value for value in get_args(wanted)}
        if text not in by_spelling:
            raise ValueError(text)
        return by_spelling[text]
    if get_origin(wanted) is tuple:
        return tuple(read_value(part.strip(), get_args(wanted)[0]) for part in text.split(","))
    if get_origin(wanted) in (Union, types.UnionType):
        return read_first(text, get_args(wanted))
    return wanted(text)


def read_first(text: str, arms: Sequence[Any]) -> Any:
    """Read `text` as the first arm of a union that takes it; `none` before the rest, text last."""
    order = sorted(arms, key=lambda arm: (arm is str, arm is not type(None)))
    for arm in order:
        try:
            return read_value(text, arm)
        except ValueError:
            continue
    raise ValueError(text)


def read_options(function: Callable[..., Any], label: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `["level=5", "split=train"]` into keyword arguments for `function`.

    `label` names the plug-in in errors ("task math"). A function with `**rest` is given every other name as text, and
    refuses those that it does not know itself. Raises UserError on a pair without `=`, a name the function does not
    take, a value of another type, and a keyword-only parameter that is required but not given.
    """
    known = options_of(function)
    takes_rest = any(each.kind is Option.VAR_KEYWORD for each in inspect.signature(function).parameters.values())
    hints = typing.get_type_hints(function)
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"{label}: cannot read the option '{pair}'; write name=value")
        if name not in known and takes_rest and name.isidentifier():
            values[name] = text
            continue
        if name not in known:
            raise UserError(f"{label} takes no option '{name}'; it takes {choices(list(known))}")
        wanted = hints.get(name, str)
        try:
            values[name] = read_value(text, wanted)
        except (ValueError, TypeError):
            raise UserError(f"{label}: {name} wants {spell_type(wanted)}, got '{text}'") from None
    missing = [name for name, parameter in known.items() if parameter.default is Option.empty and name not in values]
    if missing:
        raise UserError(
            f"{label} needs the option {missing[0]}; write {missing[0]}={spell_type(hints.get(missing[0], str))}"
        )
    return values
