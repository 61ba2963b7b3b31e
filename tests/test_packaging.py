"""What is given away: the wheel installs all that docs/OPERATIONS.md promises, the source distribution passes its own tests."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import razortools

PROJECT = Path(__file__).parents[1]
PREFIX = f"razortools-{razortools.__version__}"
BUILD = "from setuptools.build_meta import build_sdist, build_wheel; print(build_sdist('made')); print(build_wheel('made'))"
IGNORED = [line.strip("/") for line in (PROJECT / ".gitignore").read_text(encoding="ascii").split()]
AT_THE_TOP = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml", "quickstart", "test",
    "requirements.lock", "requirements-bench.lock",
}  # fmt: skip
INSTALLED = {  # folder of the project: where its files go, below the prefix
    "man": "share/man/man{section}",
    "docs/schemas": "share/razortools/schemas",
    "contrib/grafana": "share/razortools/grafana",
    "contrib/prometheus": "share/razortools/prometheus",
    "contrib/systemd": "share/razortools/systemd",
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, without what git ignores: a build writes into the folder that it builds."""
    copy = tmp_path_factory.mktemp("packaging") / "project"
    return Path(shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".git", *IGNORED)))


@pytest.fixture(scope="module")
def made(copied: Path) -> Path:
    """Return the folder with both, made by the build backend itself: nothing is fetched."""
    finished = subprocess.run([sys.executable, "-c", BUILD], cwd=copied, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return copied / "made"


@pytest.fixture(scope="module")
def wheel(made: Path) -> Path:
    """Return the wheel, unpacked."""
    with zipfile.ZipFile(made / f"{PREFIX}-py3-none-any.whl") as archive:
        archive.extractall(made / "wheel")
    return made / "wheel"


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_installs_manual_pages_schemas_and_what_monitoring_needs(wheel: Path) -> None:
    wanted = {"share/razortools/CHANGELOG.md"}
    for folder, place in INSTALLED.items():
        found = list((PROJECT / folder).iterdir())
        assert found, folder
        wanted |= {f"{place.format(section=path.suffix[1:])}/{path.name}" for path in found}
    assert files_below(wheel / f"{PREFIX}.data" / "data") == wanted


@pytest.mark.skipif(not shutil.which("man"), reason="there is no man here")
@pytest.mark.parametrize("page", [path.name for path in (PROJECT / "man").iterdir()])
def test_man_finds_each_page_below_the_prefix(page: str, wheel: Path) -> None:
    name, section = page.rsplit(".", 1)
    manual = wheel / f"{PREFIX}.data" / "data" / "share" / "man"
    finished = subprocess.run(["man", "-M", manual, "-w", section, name], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(str(manual))


def test_the_wheel_holds_all_modules_and_nothing_else_that_python_could_import(wheel: Path) -> None:
    code = {path for path in files_below(wheel) if not path.startswith(PREFIX)}
    assert code == {f"razortools/{path}" for path in files_below(PROJECT / "razortools") if path.endswith((".py", "py.typed"))}


def test_the_wheel_says_its_license_as_an_expression_and_brings_the_text(wheel: Path) -> None:
    about = email.message_from_bytes((wheel / f"{PREFIX}.dist-info" / "METADATA").read_bytes())
    assert about["License-Expression"] == "BSD-3-Clause"
    assert about.get_all("License-File") == ["LICENSE"]
    assert (wheel / f"{PREFIX}.dist-info" / "licenses" / "LICENSE").read_bytes() == (PROJECT / "LICENSE").read_bytes()
    assert not [line for line in about.get_all("Classifier", []) if line.startswith("License")]


def test_the_source_distribution_holds_all_that_the_tests_need_and_programs_stay_programs(copied: Path, made: Path) -> None:
    with tarfile.open(made / f"{PREFIX}.tar.gz") as archive:
        given = {member.name.removeprefix(f"{PREFIX}/"): bool(member.mode & 0o100) for member in archive if member.isfile()}
    here = files_below(copied) - {f"made/{path}" for path in files_below(made)}
    needed = {path for path in here if ("/" in path and not path.startswith(("build/", "razortools.egg-info/")))} | AT_THE_TOP
    assert needed - set(given) == set()
    assert {path for path in needed if given[path] != os.access(PROJECT / path, os.X_OK)} == set()
    assert not [path for path in given if "__pycache__" in path]
