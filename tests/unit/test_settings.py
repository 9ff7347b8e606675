"""Settings: where each value comes from, and that a fault is reported, never guessed around."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import settings
from jobd.envfile import EnvFile
from jobd.settings import DECLARED, DEFAULTS, Resolved

NAMES = sorted(setting.name for setting in DECLARED.values())


def resolve(
    flags: dict[str, str] | None = None, environment: dict[str, str] | None = None, file: dict[str, str] | None = None
) -> Resolved:
    """The settings from these three places; the file has one variable a line."""
    values = file or {}
    sources = {name: f".env line {number}" for number, name in enumerate(values, 1)}
    return settings.resolve(flags or {}, environment or {}, EnvFile(values, sources))


def test_nothing_given_gives_the_defaults() -> None:
    """The defaults are the contract's, and are said to be defaults."""
    resolved = resolve()
    assert resolved.settings == DEFAULTS
    assert resolved.faults == []
    assert resolved.unknown == {}
    assert {given.source for given in resolved.given.values()} == {"default"}
    assert dataclasses.asdict(DEFAULTS) == {
        "jobs": ("jobd.demo:run_job",),
        "interval": 10.0,
        "grace_period": 20.0,
        "cancel_timeout": 5.0,
        "max_running": None,
        "log_level": "info",
        "log_format": "auto",
        "demo_min": 5.0,
        "demo_max": 15.0,
    }


@pytest.mark.parametrize(
    ("given", "interval", "source"),
    [
        ({"flags", "environment", "file"}, 1.0, "command line (--interval)"),
        ({"environment", "file"}, 2.0, "environment"),
        ({"file"}, 3.0, ".env line 1"),
        ({"flags", "file"}, 1.0, "command line (--interval)"),
        (set(), 10.0, "default"),
    ],
)
def test_the_first_place_that_gives_a_setting_wins(given: set[str], interval: float, source: str) -> None:
    """Flag before environment before file before default, and the source says which it was."""
    resolved = resolve(
        {"interval": "1"} if "flags" in given else {},
        {"JOBD_INTERVAL": "2"} if "environment" in given else {},
        {"JOBD_INTERVAL": "3"} if "file" in given else {},
    )
    assert resolved.settings.interval == interval
    assert resolved.given["interval"].source == source


def test_each_setting_is_read_from_its_own_place() -> None:
    """A flag for one setting does not hide the file's value of another."""
    resolved = resolve({"interval": "1"}, {"JOBD_GRACE_PERIOD": "0"}, {"JOBD_MAX_RUNNING": "7"})
    now = resolved.settings
    assert (now.interval, now.grace_period, now.max_running) == (1.0, 0.0, 7)


def test_a_faulty_value_is_not_rescued_by_a_good_one_further_down() -> None:
    """What wins is used or reported; a typing error in the environment does not bring back the file's value."""
    resolved = resolve({}, {"JOBD_INTERVAL": "soon"}, {"JOBD_INTERVAL": "3"})
    assert [(f.setting, f.value, f.source) for f in resolved.faults] == [("JOBD_INTERVAL", "soon", "environment")]


@pytest.mark.parametrize("name", NAMES)
def test_empty_is_not_unset(name: str) -> None:
    """An empty variable is a fault that names it; it does not silently become the default."""
    resolved = resolve(environment={name: ""})
    assert [(f.setting, f.value, f.source) for f in resolved.faults] == [(name, "", "environment")]


@pytest.mark.parametrize("name", ["JOBD_INTERVAL", "JOBD_MAX_RUNNING"])
def test_zero_is_refused_where_it_means_nothing(name: str) -> None:
    """Nought seconds are no interval, and nought runs at once would be a daemon that does nothing."""
    assert [f.value for f in resolve(environment={name: "0"}).faults] == ["0"]


@pytest.mark.parametrize("name", ["JOBD_GRACE_PERIOD", "JOBD_CANCEL_TIMEOUT"])
@pytest.mark.parametrize("zero", ["0", "0s", "0.0", "00"])
def test_zero_is_kept_where_it_means_at_once(name: str, zero: str) -> None:
    """No grace is a choice, and not the same as the default."""
    resolved = resolve(environment={name: zero})
    attribute = name.removeprefix("JOBD_").lower()
    assert getattr(resolved.settings, attribute) == 0.0
    assert resolved.faults == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBD_INTERVAL", "nan"),
        ("JOBD_INTERVAL", "-1"),
        ("JOBD_INTERVAL", "1e-9"),
        ("JOBD_INTERVAL", "0.5ms"),
        ("JOBD_INTERVAL", "367d"),
        ("JOBD_INTERVAL", "9" * 64),
        ("JOBD_GRACE_PERIOD", "inf"),
        ("JOBD_GRACE_PERIOD", "1e308"),
        ("JOBD_GRACE_PERIOD", "367d"),
        ("JOBD_CANCEL_TIMEOUT", "1,5"),
        ("JOBD_MAX_RUNNING", "1.5"),
        ("JOBD_MAX_RUNNING", "-1"),
        ("JOBD_MAX_RUNNING", "1_000"),
        ("JOBD_MAX_RUNNING", " 5"),
        ("JOBD_MAX_RUNNING", "5\n"),
        ("JOBD_MAX_RUNNING", "５"),  # noqa: RUF001 - full-width digits are the point
        ("JOBD_MAX_RUNNING", "9999999999"),
        ("JOBD_LOG_LEVEL", "INFO"),
        ("JOBD_LOG_LEVEL", "verbose"),
        ("JOBD_LOG_FORMAT", "yaml"),
        ("JOBD_JOBS", "  "),
    ],
)
def test_what_cannot_be_understood_is_one_fault(name: str, value: str) -> None:
    """The fault names the variable, the value, where it came from, and what would be right."""
    (fault,) = resolve(environment={name: value}).faults
    assert (fault.setting, fault.value, fault.source) == (name, value, "environment")
    assert len(fault.reason) > 20


def test_all_faults_are_reported_at_once() -> None:
    """Whoever has three things wrong hears of three, each with its own source."""
    resolved = resolve({"interval": "x"}, {"JOBD_GRACE_PERIOD": "y"}, {"JOBD_MAX_RUNNING": "z"})
    assert [(f.setting, f.value, f.source) for f in resolved.faults] == [
        ("JOBD_INTERVAL", "x", "command line (--interval)"),
        ("JOBD_GRACE_PERIOD", "y", "environment"),
        ("JOBD_MAX_RUNNING", "z", ".env line 1"),
    ]


def test_where_a_fault_is_found_the_default_stands_in() -> None:
    """The log needs a level and a format even to say what is wrong."""
    resolved = resolve(environment={"JOBD_LOG_LEVEL": "loud", "JOBD_LOG_FORMAT": "json"})
    assert (resolved.settings.log_level, resolved.settings.log_format) == ("info", "json")


def test_an_unknown_name_is_no_fault_and_is_told_with_its_source() -> None:
    """Only names with our prefix are looked at, in the environment and in the file."""
    resolved = resolve({}, {"JOBD_INTERVALL": "1", "PATH": "/bin"}, {"JOBD_GRACE": "2", "SECRET": "3"})
    assert resolved.faults == []
    assert resolved.unknown == {"JOBD_INTERVALL": "environment", "JOBD_GRACE": ".env line 1"}


def test_what_a_command_is_told_of_its_run_is_known_only_there() -> None:
    """Where jobd is a command of jobd's, all of it is in the environment; alone, or in a file, it is a typing error."""
    marks = dict.fromkeys(["JOBD_JOB", "JOBD_RUN_ID", "JOBD_TICK", "JOBD_SCHEDULED_AT"], "x")
    assert resolve(environment=marks).unknown == {}
    assert resolve(environment={"JOBD_JOB": "myapp.jobs"}).unknown == {"JOBD_JOB": "environment"}
    assert resolve(environment=marks, file={"JOBD_JOB": "myapp.jobs"}).unknown == {"JOBD_JOB": ".env line 1"}
    assert settings.nearest("JOBD_JOB") == "JOBD_JOBS"


@pytest.mark.parametrize("name", ['"JOBD_INTERVAL"', "\ufeffJOBD_INTERVAL", ";JOBD_INTERVAL", "$JOBD_INTERVAL"])
def test_a_name_with_something_in_front_is_not_passed_over(name: str) -> None:
    """A quote or a byte order mark that became part of the name is told, with the setting that was meant."""
    assert resolve(file={name: "5s"}).unknown == {name: ".env line 1"}
    assert settings.nearest(name) == "JOBD_INTERVAL"
    assert resolve(environment={f"MY_{name}": "5s", "MYJOBD_INTERVAL": "5s"}).unknown == {}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("JOBD_INTERVALL", "JOBD_INTERVAL"),
        ("JOBD_GRACE", "JOBD_GRACE_PERIOD"),
        ("JOBD_LOGLEVEL", "JOBD_LOG_LEVEL"),
        ("JOBD_ZZZZZZZZZZZZZZZZZZ", None),
    ],
)
def test_an_unknown_name_resembles_a_setting_or_none(name: str, nearest: str | None) -> None:
    """A typing error finds the setting that was meant; something else finds nothing."""
    assert settings.nearest(name) == nearest


def test_names_are_not_folded() -> None:
    """A name in lower case is somebody else's variable."""
    resolved = resolve(environment={"jobd_interval": "1"})
    assert resolved.settings.interval == 10.0
    assert resolved.unknown == {}


def test_an_empty_target_of_the_command_line_is_none() -> None:
    """A script may hand on a variable that is empty; where nothing else is given, that is a fault."""
    resolved = settings.resolve({}, {}, EnvFile(), ["", "one", " ", "two three"])
    assert resolved.settings.jobs == ("one", "two three")
    assert [fault.setting for fault in settings.resolve({}, {}, EnvFile(), [" "]).faults] == ["JOBD_JOBS"]


def test_several_targets_are_separated_by_blanks_of_any_kind() -> None:
    """Tabs, newlines and several blanks in a row separate as one blank does."""
    assert resolve(environment={"JOBD_JOBS": " a  b:c\t\nd "}).settings.jobs == ("a", "b:c", "d")


def test_the_demo_range_is_refused_upside_down() -> None:
    """The fault is that of the end that somebody has written, and told only where both are durations."""
    (fault,) = resolve(environment={"JOBD_DEMO_MIN": "20s"}).faults
    assert (fault.setting, fault.value, fault.source) == ("JOBD_DEMO_MIN", "20s", "environment")
    assert "15s" in fault.reason
    (fault,) = resolve(environment={"JOBD_DEMO_MIN": "9s", "JOBD_DEMO_MAX": "8s"}).faults
    assert (fault.setting, fault.value) == ("JOBD_DEMO_MAX", "8s")
    assert [f.setting for f in resolve(environment={"JOBD_DEMO_MIN": "20x"}).faults] == ["JOBD_DEMO_MIN"]


def test_equal_ends_of_the_demo_range_are_a_range() -> None:
    """A demo job that always sleeps as long is allowed."""
    assert resolve(environment={"JOBD_DEMO_MIN": "1", "JOBD_DEMO_MAX": "1"}).faults == []


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where settings are listed nor in the fault that says that the secret is wrong."""
    secret = dataclasses.replace(DECLARED["log_level"], secret=True)
    monkeypatch.setitem(DECLARED, "log_level", secret)
    (fault,) = resolve(environment={"JOBD_LOG_LEVEL": "hunter2"}).faults
    assert fault.value == "***"
    assert "hunter2" not in repr(fault)
    assert settings.shown(secret, "hunter2") == "***"
    assert settings.shown(secret, None) == "unset"
    assert settings.shown(secret, "") == "***"


def test_a_flag_is_named_after_its_setting() -> None:
    """The prefix goes, the words stay."""
    assert DECLARED["cancel_timeout"].flag == "--cancel-timeout"


@pytest.mark.parametrize("key", DECLARED)
def test_each_declaration_is_complete(key: str) -> None:
    """Name, kind and meaning are there for the pages that derive from them, and the default is good."""
    setting = DECLARED[key]
    assert setting.name == "JOBD_" + key.upper()
    assert setting.kind
    assert setting.meaning.endswith(".")
    assert setting.default is None or setting.read(setting.default) == getattr(DEFAULTS, key)


_texts = st.one_of(
    st.text(),
    st.from_regex(r"[0-9.]{0,12}(ms|[smhd])?", fullmatch=True),
    st.sampled_from(["info", "json", "auto", "0", "1", "nan", "\ud800", "a:b c"]),
)


@given(st.sampled_from(sorted(DECLARED)), _texts)
def test_any_text_gives_a_value_or_exactly_one_fault(key: str, text: str) -> None:
    """Whatever is written for a setting, reading it raises nothing, and a faulty value never gets through."""
    name = DECLARED[key].name
    resolved = resolve(environment={name: text, "JOBD_DEMO_MIN": "0"} if key == "demo_max" else {name: text})
    if resolved.faults:
        (fault,) = resolved.faults
        assert fault.value in (text, "15s")
        assert getattr(resolved.settings, key) == getattr(DEFAULTS, key) or key == "demo_min"
    else:
        assert getattr(resolved.settings, key) == DECLARED[key].read(text)


@given(st.dictionaries(st.sampled_from(NAMES), _texts))
def test_there_is_one_fault_for_each_faulty_setting(environment: dict[str, str]) -> None:
    """Faults do not hide one another, and none is told twice."""
    found = [fault.setting for fault in resolve(environment=environment).faults]
    assert len(found) == len(set(found))
    alone = {name for name, text in environment.items() if resolve(environment={name: text}).faults}
    assert alone - {"JOBD_DEMO_MIN", "JOBD_DEMO_MAX"} <= set(found)
