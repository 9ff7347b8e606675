"""How bytes become lines, however they come."""

from hypothesis import given
from hypothesis import strategies as st

from jobd import output
from jobd.output import Cutter


def cut(pieces: list[bytes]) -> list[bytes]:
    """The lines that come of the pieces, the end included."""
    lines: list[bytes] = []
    cutter = Cutter(None, "stdout", lambda run, stream, line: lines.append(line))
    for piece in pieces:
        cutter.write(piece)
    cutter.end()
    return lines


def test_lines_come_without_their_ends() -> None:
    """Both kinds of end are taken off; what has no end comes at the end; an empty line is a line."""
    assert cut([b"one\ntwo\r\n", b"\nthr", b"ee"]) == [b"one", b"two", b"", b"three"]


@given(st.lists(st.binary(max_size=50)))
def test_it_does_not_matter_in_which_pieces_bytes_come(pieces: list[bytes]) -> None:
    """The lines are those of the whole."""
    assert cut(pieces) == cut([b"".join(pieces)])


@given(st.text(alphabet="aü€😀", min_size=1, max_size=40), st.integers(1, 9_000))
def test_a_long_line_loses_nothing_and_no_character_is_cut(pattern: str, step: int) -> None:
    """Pieces are as long as allowed at most; each is text by itself, and together they are the line."""
    text = pattern * (30_000 // len(pattern))
    data = text.encode()
    pieces = cut([data[at : at + step] for at in range(0, len(data), step)])
    assert "".join(piece.decode() for piece in pieces) == text
    assert all(len(piece) <= output.LINE_BYTES for piece in pieces)


def test_bytes_that_are_no_text_are_cut_all_the_same() -> None:
    """What looks like the inside of one endless character is cut as well."""
    pieces = cut([b"\x80" * 50_000])
    assert b"".join(pieces) == b"\x80" * 50_000
    assert max(map(len, pieces)) <= output.LINE_BYTES


def test_the_start_of_a_line_that_never_ends_takes_little_memory() -> None:
    """Each full piece leaves at once."""
    lines: list[bytes] = []
    cutter = Cutter(None, "stdout", lambda run, stream, line: lines.append(line))
    for _ in range(1_000):
        cutter.write(b"x" * 100)
    assert len(b"".join(lines)) >= 100_000 - output.LINE_BYTES
