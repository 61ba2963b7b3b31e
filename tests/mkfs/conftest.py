"""Running mkfs.razorfs in this process, and looking at what it made."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from razortools import mkfs
from razortools.cli import app as cli
from tests.schemas import valid

EPOCH_S = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed."""
        found: dict[str, Any] = valid("mkfs.razorfs", json.loads(self.out))
        return found


class Stdin:
    """Standard input with these bytes, as a pipe gives them."""

    def __init__(self, data: bytes) -> None:
        self.buffer = Pipe(data)


class Pipe(io.BytesIO):
    """Bytes that come once."""

    def seekable(self) -> bool:
        return False

    def isatty(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation("a pipe does not seek")


Mkfs = Callable[..., Run]


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def epoch(no_epoch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH_S))


@pytest.fixture
def run_mkfs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mkfs:
    def run(*words: object, stdin: bytes = b"") -> Run:
        monkeypatch.setattr("sys.stdin", Stdin(stdin))
        code = cli.invoke(mkfs.app, "mkfs.razorfs", cli.MKFS_CODES, [str(word) for word in words])
        seen = capsys.readouterr()
        return Run(code, seen.out, seen.err)

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A place for an image, empty."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images" / "test.img"
