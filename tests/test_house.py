"""The house rules: imports only go down, each outside library has one door, results are printed in one place."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "razortools"
FRONT_ENDS = {"doorstep", "mkfs", "mount", "umount", "fsck", "debugfs", "crashtest", "health", "pytest_plugin", "__main__"}

# A package may use what lies on lower floors; debug stands on engine; two packages on one floor do not know each other.
FLOORS = {
    "": 0.0,  # razortools itself: the version
    "units": 0.1,
    "errors": 0.1,
    "steps": 0.1,
    "standard_streams": 0.1,
    "printable": 0.1,
    "file_counts": 0.2,
    "format": 1.0,
    "engine.store": 2.0,
    "engine": 3.0,
    "check": 3.0,
    "debug": 3.5,
    "service": 4.0,
    "cli": 4.0,
    "front ends": 5.0,
}

DOORS = {
    "construct": ("format/",),
    "zstandard": ("format/compression.py",),
    "lz4": ("format/compression.py",),
    "zlib_ng": ("format/data.py",),
    "zlib": ("format/compression.py", "engine/populate/tar.py"),  # what a tarball is compressed with is none of our format
    "trio": ("service/", "mount.py"),
    "pyfuse3": ("service/", "mount.py"),
    "rich": ("cli/render.py",),
    "prompt_toolkit": ("cli/debug_prompt.py",),
    "prometheus_client": ("service/metrics.py", "service/scrape.py"),
    "h11": ("service/scrape.py",),
    "structlog": ("service/log_format.py",),
    "typer": ("cli/app.py", *(f"{name}.py" for name in FRONT_ENDS)),
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full name of every module that *path* imports, wherever in it."""
    for statement in ast.walk(tree_of(path)):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}: imports are written in full"
            assert statement.module is not None
            yield statement.module
            if statement.module.startswith("razortools"):
                yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def package_of(module: str) -> str:
    """Return the floor's name for a module's full name: ``razortools.engine.store.tree`` lives in ``engine.store``."""
    parts = module.split(".")[1:]
    if not parts or parts[0].startswith("__version"):
        return ""
    if parts[0] in FRONT_ENDS:
        return "front ends"
    return "engine.store" if parts[:2] == ["engine", "store"] else parts[0]


def module_name(path: Path) -> str:
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__")


def test_every_module_has_a_floor() -> None:
    assert {package_of(module_name(path)) for path in modules()} <= set(FLOORS)


def test_imports_only_go_down() -> None:
    upward = []
    for path in modules():
        user = package_of(module_name(path))
        for name in imports_of(path):
            used = package_of(name)
            if name.split(".")[0] == "razortools" and used != user and FLOORS.get(used, 0.0) >= FLOORS[user]:
                upward.append(f"{path.relative_to(PACKAGE)} uses {name}")
    assert upward == []


def test_check_and_engine_do_not_know_each_other() -> None:
    assert FLOORS["check"] == FLOORS["engine"]  # so that the test above refuses both directions
    for path in (PACKAGE / "check").rglob("*.py"):
        assert all(package_of(name) != "engine" for name in imports_of(path) if name.startswith("razortools.engine.")), path


def test_each_outside_library_has_its_one_door() -> None:
    through_the_window = []
    for path in modules():
        place = path.relative_to(PACKAGE).as_posix()
        for name in imports_of(path):
            doors = DOORS.get(name.split(".")[0])
            if doors is not None and not any(place == door or (door[-1] == "/" and place.startswith(door)) for door in doors):
                through_the_window.append(f"{place} imports {name}")
    assert through_the_window == []


def test_only_the_renderer_and_the_front_ends_may_print() -> None:
    printing = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}"
        for path in modules()
        if path != PACKAGE / "cli" / "render.py" and path.stem not in FRONT_ENDS
        for call in ast.walk(tree_of(path))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert printing == []


def test_no_module_is_there_for_its_test_alone() -> None:
    users = [*modules(), *(PACKAGE.parent / "tools").rglob("*.py")]
    used = {name for path in users for name in imports_of(path)}
    packages = {name.rpartition(".")[0] for name in used}  # of what is imported from a package, its __init__ is run
    names = {module_name(path) for path in modules() if path.stem not in FRONT_ENDS}
    assert names - used - packages == set()


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert [path for path in modules() if path.stem in {"utils", "util", "common", "helpers", "misc"}] == []


def test_every_module_says_its_idea() -> None:
    assert [path for path in modules() if not ast.get_docstring(tree_of(path))] == []
