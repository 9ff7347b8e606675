"""Lines of tables and keys: those that an editor shows, whatever the document holds besides."""

import tomllib

import pytest

from jobd import tomllines

DOCUMENT = '''\
# jobs.hidden = 1
top = 1
"quoted key" = 2
'li.teral'.deeper = 3
"esc\\u0061ped" = 4

[defaults]
text = """
[jobs.hidden]
hidden = 1
\\"""" # still = "text"
nothing = 1
literal = \'\'\'
hidden = 1'\'\'\'\'
list = [ # hidden = 1
  "hidden = 1", [1, 2],
  { inlist = 1 },
]
after = "[jobs.hidden] # hidden = 1"

[ jobs . "a b" ]
every = "1s" # hidden = 1
env = { A = "1", "B" = 'x=y', sub = { C = 3 }, list = [{}, {}], D = 4 }
empty = {}
last.dotted = 1979-05-27T07:32:00Z

[jobs.implied.env]
A = 1.5

[jobs.implied]
every = 1

[[several]]
one = 1
[[several]]
two = 2
'''

LINES = {
    ("top",): 2,
    ("quoted key",): 3,
    ("li.teral",): 4,
    ("li.teral", "deeper"): 4,
    ("escaped",): 5,
    ("defaults",): 7,
    ("defaults", "text"): 8,
    ("defaults", "nothing"): 12,
    ("defaults", "literal"): 13,
    ("defaults", "list"): 15,
    ("defaults", "list", "inlist"): 17,
    ("defaults", "after"): 19,
    ("jobs",): 21,
    ("jobs", "a b"): 21,
    ("jobs", "a b", "every"): 22,
    ("jobs", "a b", "env"): 23,
    ("jobs", "a b", "env", "A"): 23,
    ("jobs", "a b", "env", "B"): 23,
    ("jobs", "a b", "env", "sub"): 23,
    ("jobs", "a b", "env", "list"): 23,
    ("jobs", "a b", "env", "D"): 23,
    ("jobs", "a b", "empty"): 24,
    ("jobs", "a b", "last"): 25,
    ("jobs", "a b", "last", "dotted"): 25,
    ("jobs", "implied"): 30,
    ("jobs", "implied", "env"): 27,
    ("jobs", "implied", "env", "A"): 28,
    ("jobs", "implied", "every"): 31,
    ("several",): 33,
    ("several", "one"): 34,
    ("several", "two"): 36,
}


def test_every_key_has_the_line_that_it_stands_on() -> None:
    """Nothing that only looks like one has any."""
    tomllib.loads(DOCUMENT)
    assert tomllines.find(DOCUMENT) == LINES


def test_lines_end_as_they_do_for_the_parser() -> None:
    """With or without a carriage return; other characters that end lines elsewhere end none here."""
    text = DOCUMENT.replace("hidden", "hid\u2028den\x85")
    assert tomllines.find(text.replace("\n", "\r\n")) == LINES


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("jobs", "a b", "every"), 22),
        (("jobs", "a b", "absent"), 21),
        (("jobs", "absent", "deep", "er"), 21),
        (("jobs", "a b", "env", "sub", "C"), 23),
        (("absent",), 1),
    ],
)
def test_what_has_no_line_has_that_of_the_table_around_it(path: tuple[str, ...], line: int) -> None:
    """Or the first one of the file."""
    assert tomllines.nearest(LINES, path) == line


@pytest.mark.parametrize(
    "value",
    ['""', '""""""', '"""a""b"""', '"""a"""""', '""""a"""', '"\\\\"', '"\\""', "''", "''''''", "'''a'''''", "'\\'"],
)
def test_quotes_end_where_they_do_for_the_parser(value: str) -> None:
    """With up to two more in front of the three that close a text of several lines."""
    text = f"[t]\nfirst = {value}\nsecond = [{value}, {value}]\n\nthird = {{ key = {value}, other = {value} }}\n"
    assert list(tomllib.loads(text)["t"]) == ["first", "second", "third"]
    assert tomllines.find(text) == {
        ("t",): 1,
        ("t", "first"): 2,
        ("t", "second"): 3,
        ("t", "third"): 5,
        ("t", "third", "key"): 5,
        ("t", "third", "other"): 5,
    }
