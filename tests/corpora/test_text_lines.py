"""Lines of text files: numbers as an editor shows them, marks and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvox.corpora.text_lines import numbered_lines
from parvox.errors import CorpusError


@given(lines=st.lists(st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=8)), mark=st.booleans())
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_numbered_as_in_an_editor(
    tmp_path_factory: pytest.TempPathFactory, end: str, lines: list[str], mark: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / "list"
    path.write_bytes(end.join(lines).encode("utf-8-sig" if mark else "utf-8"))
    expected = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    assert list(numbered_lines(path, what="list", expected="", error=CorpusError)) == expected


def test_errors_name_the_file_and_what_it_should_hold(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        list(numbered_lines(path, what="a list", expected="expected names", error=CorpusError))

    with pytest.raises(CorpusError, match=r"^cannot read a list .*none: No such file or directory; expected names$"):
        read(tmp_path / "none")
    with pytest.raises(CorpusError, match="^cannot read a list .*: Is a directory; expected names$"):
        read(tmp_path)
    (tmp_path / "bytes").write_bytes(b"names\n\xff")
    with pytest.raises(CorpusError, match=r"^a list .*bytes is not a text file in UTF-8; expected names$"):
        read(tmp_path / "bytes")
