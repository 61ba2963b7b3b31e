"""The rescue in docs/FSCK.md is what the commands say and do on the image that is shipped."""

import subprocess
import sys
from pathlib import Path

import zstandard

from tools.damaged_image import IMAGE, damage, made

PROJECT = Path(__file__).resolve().parent.parent.parent


def test_the_shipped_image_is_what_its_script_makes() -> None:
    device = made()
    damage(device)
    assert zstandard.ZstdDecompressor().decompress(IMAGE.read_bytes()) == device.read(0, device.size_bytes)


def test_the_document_tells_what_the_commands_do() -> None:
    command = [sys.executable, "-m", "tools.rescue", "--check"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
