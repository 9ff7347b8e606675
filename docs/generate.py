"""Writes the pages and files that derive from the code: `make docs`. A test fails when they are out of date."""

import sys
from pathlib import Path

from jobd import durations, events, exits, policy, states
from jobd.settings import DECLARED, Setting

ROOT = Path(__file__).parent.parent


def settings_page() -> str:
    """docs/settings.md."""
    rows = [
        f"| `{s.name}` | `{s.flag}` | {_default(s.default)} | {s.kind} | {s.meaning} |"
        if key != "jobs"
        else f"| `{s.name}` | `TARGET ...` | {_default(s.default)} | {s.kind} | {s.meaning} |"
        for key, s in DECLARED.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Generated from the declarations in `jobd/settings.py` by `make docs`.",
            "",
            "| variable | on the command line | default | write it as | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
            _SETTINGS_NOTES,
        ]
    )


_SETTINGS_NOTES = """\
## Where a value comes from

A flag on the command line wins over the environment, the environment over the `.env` file, and that over the
default. `jobd check` shows each value and where it came from.

`.env` is the file of that name in the current directory, if there is one; `--env-file PATH` names another, which
must exist. It is read as python-dotenv reads it, with three differences: `${NAME}` is not expanded, a line that is
no assignment (an unclosed quote, `NAME: value`) is a fault instead of being dropped, and so is what no environment
can hold (a variable of more than 128 KiB, say), what is no regular file, more than 256 KiB, and more than 1000 blanks
in a row. Variables in it that do not start with `JOBD_` are handed on to the jobs in their environment, where a real
variable wins.

Unset, empty and `0` are three different things. Unset means the default; empty is a fault for every setting; `0`
means zero where zero makes sense (`JOBD_GRACE_PERIOD=0` cancels at once) and is a fault where it does not
(`JOBD_INTERVAL=0`).

## Durations

`10`, `0.5`, `250ms`, `10s`, `5m`, `1h30m`, `2d`: a number of seconds, or whole or broken numbers with the units
`d`, `h`, `m`, `s`, `ms`, the larger unit first. No sign, no blank, no exponent, no other digits than 0 to 9. An
interval lies between 1 ms and 366 days.

## When something is wrong

A value that cannot be understood stops the start with exit code 78, before any job is started. Every fault is one
`config.invalid` line, all of them at once: which setting, which value, where it came from, what would be right. A
variable that starts with `JOBD_` and is no setting is only a warning (`config.unknown`) that names the setting it
resembles.
"""


_EVENTS_NOTES = """\
Every line is one JSON object with `timestamp` (RFC 3339, UTC, microseconds), `level` and `event`. Durations are in
seconds, measured on the monotonic clock, and end in `_s`. Lines that a job logs itself, through structlog or stdlib
`logging`, carry `job` and `run_id`.

Two things every log proves by itself: each `run.started` has exactly one `run.finished` with its `run_id`, before
`daemon.stopped`, which is the last line; and each tick of each job appears exactly once, in a `run.started` or inside
a `tick.skipped`. (At log level `debug` or `info`, that is; the other levels hide starts and successful ends.)"""


def events_page() -> str:
    """docs/events.md."""
    sections = [_event_section(event) for event in events.REGISTER]
    index = [f"| [`{e.name}`](#{e.name.replace('.', '')}) | {e.level} | {e.meaning} |" for e in events.REGISTER]
    return "\n".join(
        [
            "# Log events",
            "",
            "Generated from the register in `jobd/events.py` by `make docs`.",
            "",
            _EVENTS_NOTES,
            "",
            "| event | level | meaning |",
            "|---|---|---|",
            *index,
            "",
            *sections,
        ]
    )


def _event_section(event: events.Event) -> str:
    fields = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in event.fields.items())
    return f"## {event.name}\n\n{event.meaning} Level: {event.level}.\n\n| field | meaning |\n|---|---|\n{fields}\n"


def env_example() -> str:
    """.env.example."""
    blocks = [f"# {s.meaning}\n# Write: {s.kind}.{_unset(s)}\n#{_assignment(s)}\n" for s in DECLARED.values()]
    head = "# The settings of jobd, with their defaults. Copy this file to .env and uncomment what you change.\n"
    return "\n".join([head, *blocks])


def _assignment(setting: Setting) -> str:
    # With nothing behind the value: systemd and Docker, which read such files, too, would take it for a part of that.
    return f"{setting.name}={setting.default or 100}"


def _unset(setting: Setting) -> str:
    return "" if setting.default else " Unset by default."


def state_chart() -> str:
    """The chart of the stop sequence, for docs/architecture.md."""
    moves: dict[tuple[str, str], list[str]] = {}
    for (state, cause), to in states.MOVES.items():
        moves.setdefault((state.name, to.name), []).append(cause.value)
    arrows = [f"    {state} --> {to}: {' / '.join(causes)}" for (state, to), causes in moves.items()]
    notes = [f"| `{state.name}` | {meaning} |" for state, meaning in states.MEANINGS.items()]
    chart = ["```mermaid", "stateDiagram-v2", "    [*] --> STARTING", *arrows, "    STOPPED --> [*]", "```"]
    return "\n".join([*chart, "", "| state | the daemon is |", "|---|---|", *notes])


def policies() -> str:
    """The table of policies, for docs/jobs.md."""
    rows = [
        f"| `{name}` | {_shown(getattr(policy.PLAIN, name))} | {each.kind} | {each.meaning} |"
        for name, each in policy.DECLARED.items()
    ]
    return "\n".join(["| policy | default | write it as | meaning |", "|---|---|---|---|", *rows])


def _shown(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, float):
        return f"`{durations.show(default)}`"
    return f"`{getattr(default, 'value', default)}`"


def exit_codes() -> str:
    """The table of exit codes, for README.md."""
    return "\n".join(
        ["| code | when |", "|---|---|", *(f"| {code.value} | {text} |" for code, text in exits.MEANINGS.items())]
    )


def pages() -> dict[Path, str]:
    """Every file that is generated, whole or between its markers, with the text it should have."""
    return {
        ROOT / "docs/settings.md": settings_page(),
        ROOT / "docs/events.md": events_page(),
        ROOT / ".env.example": env_example(),
        ROOT / "docs/architecture.md": _between(ROOT / "docs/architecture.md", "state chart", state_chart()),
        ROOT / "docs/jobs.md": _between(ROOT / "docs/jobs.md", "policies", policies()),
        ROOT / "README.md": _between(ROOT / "README.md", "exit codes", exit_codes()),
    }


def _between(page: Path, what: str, text: str) -> str:
    """The page with `text` between the two markers that name `what`."""
    start, end = f"<!-- {what}: generated by make docs -->", f"<!-- end of {what} -->"
    before, found_start, rest = page.read_text().partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        sys.exit(f"{page} lacks the markers {start} and {end}")
    return f"{before}{start}\n{text}\n{end}{after}"


def _default(default: str | None) -> str:
    return "unset: unlimited" if default is None else f"`{default}`"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
