"""Names that a peer chose: whatever comes in, what comes out is one harmless name."""

from __future__ import annotations

import unicodedata
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.filenames import MAX_BYTES, folded, numbered, safe_name, safe_paths, shorten

#: More of what is dangerous than chance would bring.
TRICKY = st.text(
    alphabet=st.one_of(
        st.sampled_from('./\\:\0\n\r\t ~*?"<>|CONcon1¹-_\u202e\u200b\u2028\u00a0\ufeff\ud800e\u0301\u0338\u1e9e\u212a'),
        st.characters(),
    ),
    max_size=300,
)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("Bericht über Äpfel.pdf", "Bericht über Äpfel.pdf"),
        ("日本語 😀.txt", "日本語 😀.txt"),
        ("e\u0301.txt", "é.txt"),
        ("", "unnamed"),
        ("...", "unnamed"),
        (" . ", "unnamed"),
        (".", "unnamed"),
        ("..", "unnamed"),
        ("\u202e\u200b", "unnamed"),
        (".bashrc", "bashrc"),
        ("..\\..\\evil.exe", "_.._evil.exe"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\Windows\\system.ini", "C__Windows_system.ini"),
        ("file.txt:stream", "file.txt_stream"),
        ("file.txt::$DATA", "file.txt__$DATA"),
        ('a<b>c"d|e?f*g', "a_b_c_d_e_f_g"),
        ("line\nbreak\r\t.txt", "line_break__.txt"),
        ("nul\0byte", "nul_byte"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("a\u2028b", "a_b"),
        ("no\u00a0break\u3000space", "no break space"),
        ("trailing. . .", "trailing"),
        ("  leading", "leading"),
        ("CON", "_CON"),
        ("con", "_con"),
        ("Con.txt", "_Con.txt"),
        ("con .txt", "_con .txt"),
        ("aux.tar.gz", "_aux.tar.gz"),
        ("COM1", "_COM1"),
        ("com¹.log", "_com¹.log"),
        ("LPT9.", "_LPT9"),
        ("CONIN$", "_CONIN$"),
        ("CONSOLE", "CONSOLE"),
        ("COM10", "COM10"),
        ("lone \ud800 surrogate", "lone _ surrogate"),
        ("-rf", "-rf"),
    ],
)
def test_safe_name_of_a_known_trick_is_harmless(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_safe_name_inside_a_tree_keeps_hidden_files_and_no_more() -> None:
    assert safe_name(".bashrc", hidden=True) == ".bashrc"
    assert safe_name("..", hidden=True) == "unnamed"
    assert safe_name(" .a", hidden=True) == ".a"


@given(TRICKY, st.booleans())
def test_safe_name_of_anything_is_one_name_that_stays(name: str, hidden: bool) -> None:
    safe = safe_name(name, hidden=hidden)
    assert 0 < len(safe.encode()) <= MAX_BYTES
    assert not set('/\\:*?"<>|') & set(safe)
    assert not {unicodedata.category(character) for character in safe} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert unicodedata.is_normalized("NFC", safe)
    assert safe not in (".", "..")
    assert safe[-1] not in " ."
    assert safe[0] != " "
    assert hidden or safe[0] != "."
    assert safe_name(safe, hidden=hidden) == safe


@given(TRICKY)
def test_safe_name_of_an_everyday_name_changes_nothing(name: str) -> None:
    everyday = "a" + "".join(c for c in name if c.isalnum() and c.isascii()) + ".txt"
    assert safe_name(everyday) == shorten(everyday, MAX_BYTES)


@pytest.mark.parametrize(
    ("name", "end"),
    [("x" * 300 + ".tar.gz", ".tar.gz"), ("é" * 300 + ".jpeg", ".jpeg"), ("😀" * 100 + ".😀", ".😀"), ("y" * 300, "y")],
)
def test_safe_name_of_a_long_name_keeps_its_extension(name: str, end: str) -> None:
    safe = safe_name(name)
    assert MAX_BYTES - 4 < len(safe.encode()) <= MAX_BYTES
    assert safe.endswith(end)
    assert safe.removesuffix(end) in name


def test_shorten_of_an_extension_without_room_cuts_it() -> None:
    assert shorten("name.extension", 5) == "name."
    assert shorten("é.é", 1) == ""


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("a.txt", 0, "a.txt"),
        ("a.txt", 1, "a (1).txt"),
        ("a.tar.gz", 12, "a (12).tar.gz"),
        ("directory", 2, "directory (2)"),
        (".hidden", 1, ".hidden (1)"),
        ("Mr. Smith", 1, "Mr. Smith (1)"),
        ("x" * 251 + ".txt", 10, "x" * 246 + " (10).txt"),
    ],
)
def test_numbered_name_has_its_number_before_the_extension(name: str, number: int, expected: str) -> None:
    assert numbered(name, number) == expected


@given(TRICKY, st.integers(1, 10**9))
def test_numbered_name_of_a_safe_one_is_safe(name: str, number: int) -> None:
    result = numbered(safe_name(name), number)
    assert safe_name(result) == result
    assert f" ({number})" in result


def test_safe_paths_of_names_that_fall_together_are_numbered_in_order() -> None:
    paths = [
        ("A.txt",),
        ("a.txt",),
        ("a (1).txt",),
        ("a:txt",),
        ("a?txt",),
        ("é",),
        ("e\u0301",),
        ("straße",),
        ("STRASSE",),
    ]
    assert safe_paths(paths) == [
        ("A.txt",),
        ("a (1).txt",),
        ("a (1) (1).txt",),
        ("a_txt",),
        ("a_txt (1)",),
        ("é",),
        ("é (1)",),
        ("straße",),
        ("STRASSE (1)",),
    ]


def test_safe_paths_of_a_file_and_a_directory_that_fall_together_are_kept_apart() -> None:
    assert safe_paths([("a?", "x"), ("a:",), ("a?", "X"), ("a*", "x")]) == [
        ("a_", "x"),
        ("a_ (1)",),
        ("a_", "X (1)"),
        ("a_ (2)", "x"),
    ]


@given(st.lists(st.lists(TRICKY, min_size=1, max_size=3).map(tuple), max_size=8, unique=True))
def test_safe_paths_of_any_tree_are_distinct_on_every_file_system(paths: list[tuple[str, ...]]) -> None:
    safe = safe_paths(paths)
    assert safe == safe_paths(paths)
    assert [len(path) for path in safe] == [len(path) for path in paths]
    assert len({tuple(map(folded, path)) for path in safe}) == len(paths)
    assert all(safe_name(name, hidden=True) == name for path in safe for name in path)


def test_safe_paths_of_many_names_that_fall_together_are_all_different() -> None:
    spellings = ["".join(letters) for letters in permutations("abcdefg")]
    paths = [(text.replace("a", "\u200b"),) for text in spellings] + [(f"bcdefg ({n})",) for n in range(1, 2_000)]
    assert len({folded(name) for (name,) in safe_paths(paths)}) == len(paths)
