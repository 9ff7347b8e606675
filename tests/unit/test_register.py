"""The register of events: no event is spelled anywhere else, and every line has the fields that it promises."""

import ast
import pathlib
from collections import defaultdict
from collections.abc import Iterator
from typing import TypeGuard

import pytest

import jobd
from jobd import events
from jobd.events import REGISTER, Event

SOURCES = {path: ast.parse(path.read_text()) for path in sorted(pathlib.Path(jobd.__file__).parent.glob("*.py"))}
CONSTANTS = {name: value for name, value in vars(events).items() if isinstance(value, Event)}
#: What `failure` gives.
_FAILURE = {"error", "traceback"}


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call in the sources that is handed an event of the register, with the event's constant."""
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            match node:
                case ast.Call(args=[ast.Attribute(value=ast.Name(id="events"), attr=constant), *_]):
                    yield constant, node


#: What an ending gives beside that.
_ENDING = _FAILURE | {"exit_status", "signal"}


def _spread(value: ast.expr) -> set[str]:
    """The fields that are spread into a line: those of a failure, those of an ending, or those that stand there."""
    names = {node.attr if isinstance(node, ast.Attribute) else node.id for node in ast.walk(value) if _is_name(node)}
    if "failure" in names:
        return _FAILURE
    if "fields" in names:
        return _ENDING
    keys = [key for node in ast.walk(value) if isinstance(node, ast.Dict) for key in node.keys]
    return {str(key.value) if isinstance(key, ast.Constant) else "anything" for key in keys} or {"anything"}


def _is_name(node: ast.AST) -> TypeGuard[ast.Attribute | ast.Name]:
    return isinstance(node, ast.Attribute | ast.Name)


def test_the_sources_are_there() -> None:
    """The checks below look at real calls, of most events."""
    assert len(SOURCES) > 20
    assert len({constant for constant, _ in _calls()}) > 15


def test_every_event_has_its_own_name_and_constant() -> None:
    """`daemon.ready` is DAEMON_READY, and nothing is registered twice."""
    assert [event.name for event in REGISTER] == [name.lower().replace("_", ".", 1) for name in CONSTANTS]
    assert len({event.name for event in REGISTER}) == len(REGISTER)


@pytest.mark.parametrize("event", REGISTER, ids=lambda event: event.name)
def test_every_event_is_described(event: Event) -> None:
    """A level of the log, a sentence, a meaning for each field; the common three are not among them."""
    assert event.level in ("debug", "info", "warning", "error")
    assert event.meaning.endswith(".")
    assert all(event.fields.values())
    assert not {"timestamp", "level", "event"} & set(event.fields)


def test_no_other_file_spells_an_event() -> None:
    """A loose string would be an event that the docs do not know."""
    names = {event.name for event in REGISTER}
    loose = [
        f"{path.name}:{node.lineno}"
        for path, tree in SOURCES.items()
        if path.name != "events.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert loose == []


def test_every_event_is_used() -> None:
    """What nothing logs is not promised."""
    used = {node.attr for tree in SOURCES.values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(CONSTANTS) <= used


def test_every_event_that_is_used_is_registered() -> None:
    """A typing error in a constant is found here, not when the line is due."""
    assert {constant for constant, _ in _calls()} <= set(CONSTANTS)


def test_every_field_that_is_logged_is_in_the_register() -> None:
    """Also what is spread into a line."""
    unknown: list[str] = []
    for constant, call in _calls():
        for keyword in call.keywords:
            fields = _spread(keyword.value) if keyword.arg is None else {keyword.arg} - {"level"}
            unknown += [f"{constant}: {field}" for field in fields - set(CONSTANTS[constant].fields)]
    assert unknown == []


def test_every_field_in_the_register_is_logged() -> None:
    """What the docs promise about an event, some call gives it."""
    given: defaultdict[str, set[str]] = defaultdict(set)
    for constant, call in _calls():
        for keyword in call.keywords:
            given[constant] |= _spread(keyword.value) if keyword.arg is None else {keyword.arg}
    given["LOG_DROPPED"].add("count")  # made in the log itself, which cannot log that it could not
    promised = {f"{name}: {field}" for name, event in CONSTANTS.items() for field in event.fields}
    assert promised - {f"{name}: {field}" for name, fields in given.items() for field in fields} == set()
