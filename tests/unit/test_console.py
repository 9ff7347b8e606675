"""Lines for people: whatever a line holds, it is shown, and nothing is raised."""

import json
from typing import Any

import pytest

from jobd import events, log, render

#: What each field of the daemon's own lines looks like; others are text.
TYPICAL: dict[str, Any] = {
    "stack": ["jobs.py:3 in job", "jobs.py:9 in helper"],
    "runs": [{"job": "job", "run_id": "a-1", "age_s": 1.5}],
    "error": {"type": "ValueError", "message": "no"},
    "traceback": "Traceback (most recent call last):\nValueError: no\n",
    "tick": 3,
    "lateness_s": 0.001,
}


def shown(**fields: Any) -> str:
    return log._console_line({"timestamp": "now", "level": "info", "event": "event", **fields}).decode()


@pytest.mark.parametrize("event", events.REGISTER, ids=lambda event: event.name)
def test_each_event_is_shown_with_all_its_fields(event: events.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of the daemon's own falls back to JSON, and none of its fields is left out."""
    monkeypatch.setenv("NO_COLOR", "1")
    fields = {name: TYPICAL.get(name, f"<{name}>") for name in event.fields}
    text = shown(**fields)
    for name, value in fields.items():
        marks = value if name == "stack" else [str(value).splitlines()[-1]] if name == "traceback" else [name]
        assert all(mark in text for mark in marks), name


@pytest.mark.parametrize("key", ["stack", "exception", "traceback", "error", "exc_info", "event", "level", "logger"])
@pytest.mark.parametrize("value", [5, None, "text", ["a", 1], {"type": 1}, {"code": 5}, b"\xff", object()])
def test_a_job_may_use_the_renderers_own_names(key: str, value: object) -> None:
    """Names that the renderer treats in a way of its own may hold anything."""
    line = {"timestamp": "now", "level": "info", "event": "event", key: value}
    assert log._for_people(line).decode().strip()


def test_nothing_commands_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences in a text are shown, not obeyed."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(value="\x1b[2J", stack=["\x1b[2J"], traceback="\x1b[2J")


def test_a_line_that_the_renderer_cannot_show_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better an ugly line than none."""

    def refuse(fields: dict[str, Any]) -> bytes:
        raise TypeError("cannot")

    monkeypatch.setattr(log, "_console_line", refuse)
    assert json.loads(log._for_people({"event": "event"})) == json.loads(render.line({"event": "event"}))
