"""Where in the text of a TOML document its tables and keys stand, which `tomllib` does not tell.

Imports nothing of ours. The document is known to be valid, so only what decides about lines is looked at: texts and
comments, which may look like keys; brackets, which nest; and the keys themselves.
"""

import re

#: Deeper than this, a key has the line of the table that it is in.
DEPTH = 4

#: A text takes up to two more quotes of its own kind before those that close it.
_TOKEN = re.compile(
    r"""
      \#[^\n]*
    | (?P<text> \"{3} (?: [^"\\] | \\. | "{1,2}(?!") )*+ "{3,5}
              | '{3} (?: [^'] | '{1,2}(?!') )*+ '{3,5}
              | " (?: [^"\\\n] | \\. )*+ "
              | ' [^'\n]*+ ' )
    | (?P<bare> [^\s\[\]{}=,.\#"']+ )
    | (?P<mark> [\[\]{}=,\n] )
    """,
    re.VERBOSE | re.DOTALL,
)

Path = tuple[str, ...]


def find(text: str) -> dict[Path, int]:
    """The line of each table and key, by its path; of what comes several times, the first."""
    return _Reader(text).lines


def nearest(lines: dict[Path, int], path: Path) -> int:
    """The line of what the path names, or of the nearest table around it."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


class _Reader:
    """Goes through the document once, token by token."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        #: What `[table]` has said last.
        self._table: Path = ()
        self._headed: set[Path] = set()
        #: Of the value that is being read.
        self._path: Path = ()
        #: The inline tables (True) and arrays around this place, each with the path that its keys are under.
        self._within: list[tuple[Path, bool]] = []
        self._start_key()
        line, place = 1, 0
        for token in _TOKEN.finditer(text):
            line += text.count("\n", place, token.start())
            place = token.start()
            self._take(token, line)

    def _start_key(self) -> None:
        self._parts: list[str] = []
        self._in_key, self._in_header = True, False

    def _take(self, token: re.Match[str], line: int) -> None:
        mark = token["mark"]
        if mark == "\n" and not self._within:
            self._start_key()
        elif self._in_key:
            self._take_key(token, line)
        elif mark in ("{", "["):
            self._within.append((self._path, mark == "{"))
            self._in_key = mark == "{"
            self._parts = []
        elif mark in ("}", "]"):
            self._leave()
        elif mark == "," and self._within and self._within[-1][1]:
            self._start_key()

    def _take_key(self, token: re.Match[str], line: int) -> None:
        mark = token["mark"]
        if token["bare"] or token["text"]:
            self._parts.append(token["bare"] or _unquoted(token["text"]))
        elif mark == "[":
            self._in_header = True
        elif mark == "]":
            self._table = self._path = tuple(self._parts)
            self._in_key = False
            self._note(line)
        elif mark == "=":
            around = self._within[-1][0] if self._within else self._table
            self._path = (*around, *self._parts)
            self._in_key = False
            self._note(line)
        elif mark == "}":  # of an inline table that is empty
            self._leave()

    def _leave(self) -> None:
        """Leave the innermost array or inline table; after a header there is none."""
        self._in_key = False
        if self._within:
            self._path, _ = self._within.pop()

    def _note(self, line: int) -> None:
        for end in range(1, min(len(self._path), DEPTH) + 1):
            self.lines.setdefault(self._path[:end], line)
        if self._in_header and self._path not in self._headed:  # where it says so itself, not where it is implied
            self._headed.add(self._path)
            self.lines[self._path] = line


def _unquoted(quoted: str) -> str:
    if quoted[0] == "'" or "\\" not in quoted:
        return quoted[1:-1]
    import tomllib

    key: str = tomllib.loads(f"key = {quoted}")["key"]
    return key
