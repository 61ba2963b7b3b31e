"""Numbers that make no sense: each is refused in one sentence of ours."""

from pathlib import Path

import pytest

from tests.debug.tool import debug
from tests.images import make_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image")


@pytest.mark.parametrize(
    "command",
    ["paths 999999999999999999999999", "paths -1", "node -1", "block -1", "undelete -1", "head -n -1 /", "head -c -1 /",
     "tree -L -1", "stat <99999999999999999999>"],
)  # fmt: skip
def test_regression_a_number_that_cannot_be_is_refused(
    image: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The first was a struct.error, and `node -1` asked the host's disk."""
    assert debug("-R", command, image) in (1, 2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "not possible" in err or "not a size" in err or "No such file" in err


def test_regression_a_value_that_does_not_fit_is_refused_without_words_of_python(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert debug("-w", "-R", "set inode.uid 99999999999999 /", image) == 2
    assert capsys.readouterr().err == "razorfs-debug: set: 99999999999999 does not fit into inode.uid\n"
