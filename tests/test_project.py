"""The project itself: what is generated is up to date, what is promised is there."""

import itertools
import os
import re
import shlex
import shutil
import sys
import tomllib
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path
from subprocess import run

import pytest

import razortools

PROJECT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS = SETTINGS["project"]["scripts"]


def locked_in(name: str) -> dict[str, str]:
    """Return the versions by package that a lock names."""
    lines = (PROJECT / name).read_text(encoding="ascii").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


LOCKED = locked_in("requirements.lock")


def plain_name(requirement: str) -> str:
    """Return the package's name in *requirement*, as the index compares names."""
    match = re.match(r"[\w.-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match.group()).lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_contract_starts_and_tells_its_version(name: str) -> None:
    module, function = COMMANDS[name].split(":")
    assert callable(getattr(import_module(module), function))
    script = f"import sys; from {module} import {function} as main; sys.argv = ['{name}', '--version']; main()"
    finished = run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"razortools {razortools.__version__}\n", "")


def test_the_lock_names_an_exact_version_of_everything_that_is_needed() -> None:
    extras = SETTINGS["project"]["optional-dependencies"]
    asked = [*SETTINGS["project"]["dependencies"], *extras["test"], *extras["profile"], *extras["pytest"]]
    wanted = {plain_name(one) for one in asked} - {"razortools"}  # the extra of the tests names two others
    locked = {plain_name(name) for name in LOCKED}
    assert wanted <= locked
    for name in wanted:
        further = [one for one in requires(name) or [] if "extra ==" not in one and "platform" not in one and "python" not in one]
        assert {plain_name(one) for one in further if ";" not in one} <= locked, name


def test_the_lock_of_the_benchmarks_adds_to_the_other_and_contradicts_it_nowhere() -> None:
    added = {plain_name(name) for name in locked_in("requirements-bench.lock")}
    assert {plain_name(one) for one in SETTINGS["project"]["optional-dependencies"]["bench"]} <= added
    assert not added & {plain_name(name) for name in LOCKED}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-bench.lock"])
def test_the_lock_names_no_index(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="ascii")
    assert "://" not in text
    assert "--" not in text


def test_types_are_checked_in_all_code_but_the_tests() -> None:
    with_code = {path.relative_to(PROJECT).parts[0] for path in PROJECT.glob("[a-z]*/**/*.py")} - {"build"}
    assert set(SETTINGS["tool"]["mypy"]["files"]) == with_code - {"tests"}


@pytest.mark.parametrize("name", ["quickstart", "test", ".ci/run", "tools/setup", "bench/run"])
def test_the_scripts_can_be_run_and_have_no_mistakes_in_their_syntax(name: str) -> None:
    assert os.access(PROJECT / name, os.X_OK)
    assert run(["bash", "-n", PROJECT / name]).returncode == 0


def test_the_manual_pages_are_up_to_date() -> None:
    finished = run([sys.executable, "tools/man_pages.py", "--check"], cwd=PROJECT, env={**os.environ, "PYTHONPATH": "."})
    assert finished.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_manual_page(name: str) -> None:
    assert list((PROJECT / "man").glob(f"{name}.[18]"))


def test_the_filesystem_has_a_manual_page_whose_numbers_come_from_the_code() -> None:
    from razortools.format.inode import LINK_MAX
    from razortools.format.superblock import Incompat

    page = (PROJECT / "man" / "razorfs.5").read_text(encoding="utf-8")
    assert f"{LINK_MAX}." in page
    assert all(f"\\fB{str(feature.name).lower()}\\fR" in page for feature in Incompat)


def test_the_manual_pages_are_good_roff() -> None:
    for page in (PROJECT / "man").glob("*.[1-9]"):
        if not page.read_text(encoding="utf-8").startswith(".so "):
            finished = run(["groff", "-man", "-Tascii", "-ww", "-z", page], capture_output=True, text=True)
            assert (finished.returncode, finished.stderr) == (0, ""), page


def heads(section: str) -> list[str]:
    """Return what stands in bold at the heads of the paragraphs of a manual page's section, as `name` or `name=`."""
    found = []
    for macro, rest in re.findall(r"^\.TP\n\.(B|BI|BR) (.+)$", section, re.MULTILINE):
        found += shlex.split(rest)[:: 1 if macro == "B" else 2]  # BI and BR: by turns bold and something else
    return found


def test_the_manual_page_has_a_paragraph_for_each_mount_option_and_for_nothing_else() -> None:
    from razortools.service import options

    page = (PROJECT / "man" / "mount.razorfs.8").read_text(encoding="utf-8")
    section = page.split(".SH MOUNT OPTIONS\n")[1].split(".SH ")[0]
    assert section.count(".TP\n") == len(re.findall(r"^\.TP\n\.(?:B|BI|BR) ", section, re.MULTILINE)), "a head that is not bold"
    assert sorted(heads(section)) == sorted([*options._SWITCHES, *(f"{name}=" for name in options._VALUES)])


def test_the_changelog_tells_of_this_version() -> None:
    assert f"\n## {razortools.__version__}" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in PROJECT.glob("*.md")))
def test_what_a_page_links_to_is_there_and_so_is_each_program_that_it_says_to_run(name: str) -> None:
    page = (PROJECT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", page)
    run_here = re.findall(r"^ {4}\./(\w+)|`\./(\w+)", page, re.MULTILINE)
    wanted = {*links, *filter(None, itertools.chain(*run_here))}
    assert {one for one in wanted if not (PROJECT / one).exists()} == set()
    modules = re.findall(r"python -m ((?:tools|bench|razortools)[\w.]*)", page)
    assert {one for one in modules if not list(PROJECT.glob(f"{one.replace('.', '/')}*"))} == set()


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [True, False], ids=["mounted", "without FUSE"])
def test_quickstart_shows_the_whole_life_of_an_image_and_leaves_nothing_behind(fuse: bool, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)} | ({} if fuse else {"RAZORFS_NO_FUSE": "1"})
    before = {path.name for path in PROJECT.iterdir()}
    finished = run(["./quickstart", "docs"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "every file is there and the same" in finished.stdout
    assert finished.stdout.count("demo.img: clean") == 1
    assert ("the engine copies the tree in by itself" in finished.stdout) != (fuse and os.access("/dev/fuse", os.W_OK))
    assert list(tmp_path.iterdir()) == []
    left = {path.name for path in PROJECT.iterdir() if not path.name.startswith(".coverage")}  # the tests' own, in a run of all
    assert left - before <= {".venv", ".venv.lock"}


@pytest.mark.slow
def test_quickstart_cleans_up_when_something_fails(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    finished = run(["./quickstart", "no-such-tree"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "stopped with exit code 1" in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_setting_up_empties_no_environment_that_a_link_leads_to(tmp_path: Path) -> None:
    """`venv --clear` followed the link, emptied what it led to, and refused then."""
    (tmp_path / "tools").mkdir()
    for name in ("tools/setup", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (tmp_path / ".venv").symlink_to("elsewhere")
    done = run([tmp_path / "tools" / "setup"], capture_output=True, text=True)
    assert done.returncode and "is a symbolic link" in done.stderr
    assert (tmp_path / "elsewhere" / "precious").exists()
