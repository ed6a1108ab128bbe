"""
`ModelReader`: plain mappings → models, with the names and value formats of one API generation.

A field that cannot be read is left out and reported as a problem. An object without a readable id is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import NOTHING, fields, has
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from callfire_async._codec.scalars import Hook, as_list, item_type
from callfire_async.models import (
    Broadcast,
    CccBroadcastConfig,
    IvrBroadcastConfig,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)

T = TypeVar("T")
Reader = Callable[[Any, str, list[str]], Any]
Prepare = Callable[[dict[str, Any]], dict[str, Any]]

# More fields than a call with a hundred records has; reporting this many takes a few milliseconds.
_MAX_PROBLEMS = 1_000
# A message ends up in logs and in the reason of a dead letter.
_MAX_LISTED_PROBLEMS = 10

# A broadcast has one of these four, each under its own name.
CONFIGS = {
    kind.__name__: kind for kind in (TextBroadcastConfig, VoiceBroadcastConfig, IvrBroadcastConfig, CccBroadcastConfig)
}


class ConversionError(ValueError):
    """Raised inside the package if an object, or its id, is missing or invalid."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(format_problems(problems))
        self.problems = problems


def format_problems(problems: Sequence[str]) -> str:
    """Return problems as one message, with the first ten and the number of the others."""
    more = len(problems) - _MAX_LISTED_PROBLEMS
    return ", ".join(problems[:_MAX_LISTED_PROBLEMS]) + (f" and {more} more" if more > 0 else "")


class ModelReader:
    """
    Converts plain mappings to models.

    Args:
        wire_name: Returns the name that a model's attribute has on the wire.
        field_hook: Returns the hook that converts an attrs field's value, or None if the field holds other models.
        prepare: Functions that rearrange the mapping of a model before it is read.
    """

    def __init__(
        self,
        wire_name: Callable[[type, str], str],
        field_hook: Callable[[Any], Hook | None],
        prepare: Mapping[type, Prepare] = MappingProxyType({}),
    ) -> None:
        self._wire_name = wire_name
        self._field_hook = field_hook
        self._prepare = prepare
        # Stops at the first value that it cannot read.
        self._converter = Converter(detailed_validation=False)
        self._converter.register_structure_hook_factory(has, self._make_hook)
        # Saves the converter's own lookup.
        self._hooks: dict[type, Hook] = {}
        self._lenient: dict[type, tuple[tuple[str, str, Reader], ...]] = {}
        self._required: dict[type, tuple[tuple[str, str], ...]] = {}

    def structure(self, kind: type[T], content: object, path: str) -> tuple[T, tuple[str, ...]]:
        """
        Convert a part of a document to a model.

        Args:
            kind: The model's class.
            content: Usually a dict.
            path: The path of *content* in the document, for the problems.

        Returns:
            The model, and a problem as ``kind @ path`` for each field that was left out because it could not be read.

        Raises:
            ConversionError: *content* is not an object, its id is missing or invalid, or it has more than 1,000
                problems.
        """
        try:
            if isinstance(content, dict):
                return self._hook(kind)(content, kind), ()
        except (ValueError, KeyError):
            pass  # only an invalid document pays for finding its problems
        found: list[str] = []
        model = self._convert_leniently(kind, content, path, found)
        problems = tuple(dict.fromkeys(found))
        if model is None:
            raise ConversionError(problems)
        return model, problems

    # --- without problems ---------------------------------------------------------------------------------

    def _hook(self, kind: type) -> Hook:
        """Return a model's hook."""
        hook = self._hooks.get(kind)
        if hook is None:
            hook = self._hooks[kind] = self._converter.get_structure_hook(kind)
        return hook

    def _make_hook(self, kind: type[Any]) -> Hook:
        overrides: dict[str, Any] = {
            field.name: override(rename=self._wire_name(kind, field.name), struct_hook=self._hook_for(field))
            for field in fields(kind)
        }
        hook = make_dict_structure_fn(kind, self._converter, _cattrs_detailed_validation=False, **overrides)
        if prepare := self._prepare.get(kind):
            return lambda content, _: hook(prepare(content), kind)
        return self._with_config(hook) if kind is Broadcast else hook

    def _hook_for(self, field: Any) -> Hook:
        if field.name == "config":
            return self._config_hook
        return self._field_hook(field) or self._model_hook(field)

    def _model_hook(self, field: Any) -> Hook:
        """Return the hook of a field that holds one model or a tuple of them."""
        kind, is_repeated = item_type(field.type)
        hook = self._hook(kind)
        if is_repeated:
            return lambda value, _: tuple([hook(_object(item), None) for item in as_list(value)])
        return lambda value, _: hook(_object(value), None) if value else None

    def _config_hook(self, named: tuple[str, Any] | None, _: object) -> Any:
        return named and self._hook(CONFIGS[named[0]])(_object(named[1]), None)

    def _with_config(self, hook: Hook) -> Hook:
        """Wrap the hook of a broadcast: move its configuration and the name of that to the field's own key."""
        key = self._wire_name(Broadcast, "config")

        def hook_with_config(content: Mapping[str, Any], kind: object) -> object:
            named = next(((name, content[name]) for name in CONFIGS if content.get(name)), None)
            # Replaces such a key of the document's own, which CallFire does not send.
            return hook({**content, key: named}, kind)

        return hook_with_config

    # --- with problems ------------------------------------------------------------------------------------

    def _convert_leniently(self, kind: type[Any], content: object, path: str, problems: list[str]) -> Any:
        """Convert the readable fields, add a problem for each of the others; return None if the id is not readable."""
        if not isinstance(content, dict):
            _add_problem(problems, "not an object", path)
            return None
        content = self._prepare[kind](content) if kind in self._prepare else content
        values: dict[str, object] = {}
        for name, wire, read in self._lenient_readers(kind):
            if wire in content and name not in values:
                value = read(content[wire], f"{path}.{wire}", problems)
                values |= {} if value is None else {name: value}
        missing = [wire for name, wire in self._required[kind] if name not in values]
        for wire in missing:
            if wire not in content:
                _add_problem(problems, "missing", f"{path}.{wire}")
        return None if missing else _create(kind, values, path, problems)

    def _lenient_readers(self, kind: type[Any]) -> tuple[tuple[str, str, Reader], ...]:
        """Return attribute, name on the wire and reader of each field; of several for one attribute the first wins."""
        if kind not in self._lenient:
            self._lenient[kind] = tuple(self._make_lenient_readers(kind))
            self._required[kind] = tuple(
                (field.name, self._wire_name(kind, field.name)) for field in fields(kind) if field.default is NOTHING
            )
        return self._lenient[kind]

    def _make_lenient_readers(self, kind: type[Any]) -> list[tuple[str, str, Reader]]:
        readers: list[tuple[str, str, Reader]] = []
        for field in fields(kind):
            if field.name == "config":
                readers += [(field.name, wire, self._model_reader(config)) for wire, config in CONFIGS.items()]
            else:
                readers.append((field.name, self._wire_name(kind, field.name), self._lenient_reader(field)))
        return readers

    def _lenient_reader(self, field: Any) -> Reader:
        if hook := self._field_hook(field):
            return lambda value, path, problems: _try_hook(hook, value, path, problems)
        kind, is_repeated = item_type(field.type)
        return self._models_reader(kind) if is_repeated else self._model_reader(kind)

    def _model_reader(self, kind: type[Any]) -> Reader:
        """Return the reader of a field that holds one model, None if no field of that is readable."""

        def read(value: Any, path: str, problems: list[str]) -> Any:
            model = self._convert_leniently(kind, value, path, problems) if value else None
            return None if model == kind() else model

        return read

    def _models_reader(self, kind: type[Any]) -> Reader:
        def read(value: Any, path: str, problems: list[str]) -> Any:
            items = enumerate(as_list(value))
            models = (self._convert_leniently(kind, item, f"{path}[{index}]", problems) for index, item in items)
            return tuple(model for model in models if model is not None)

        return read


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError("not an object")


def _add_problem(problems: list[str], problem: object, path: str) -> None:
    problems.append(f"{problem} @ {path}")
    if len(problems) > _MAX_PROBLEMS:
        raise ConversionError((f"more than {_MAX_PROBLEMS} unreadable fields, the first: {problems[0]}",))


def _create(kind: type[Any], values: dict[str, object], path: str, problems: list[str]) -> Any:
    try:
        return kind(**values)
    except ValueError as error:  # of the model itself: a number of a filter can have half of a surrogate pair
        _add_problem(problems, error, path)
        return None


def _try_hook(hook: Hook, value: object, path: str, problems: list[str]) -> object:
    try:
        return hook(value, None)
    except (ValueError, KeyError) as error:
        _add_problem(problems, "missing" if isinstance(error, KeyError) else error, path)
        return None
