"""What all tests share: random values that are the same in every run, and names of tests that do not depend on the run."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# The same values on every run and machine, so that a red test stays red. `--hypothesis-profile=explore` looks for new ones;
# what it finds is printed with a line that reproduces it.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("repeatable"), derandomize=False, max_examples=1000)
settings.load_profile("repeatable")

NAMED_BYTES_MAX = 40
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REPEATING = ("acceptance", "crashtest", "fuzz")  # directories


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value after its argument: an archive in a test's name helps nobody, and holds the time it was made."""
    return argname if isinstance(val, bytes | str) and len(val) > NAMED_BYTES_MAX else None


def pytest_report_header(config: pytest.Config) -> str:
    """Say which random values this run uses."""
    return f"hypothesis values: {settings.get_current_profile_name()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slow tests, so that no processor waits for them at the end.

    Those that do the same thousands of times are not measured: that would take twice as long, and quick tests pass there, too.
    """
    for item in items:
        if item.get_closest_marker("slow") and item.path.parent.name in REPEATING:
            item.add_marker("no_cover")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _processes_of_slow_tests_are_not_measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow test starts would take half as long again if its coverage were measured; the quick tests cover the same."""
    if request.node.get_closest_marker("slow"):
        for variable in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def signals_as_at_a_terminal() -> Iterator[None]:
    """A run of the tests in the background ignores SIGINT, with nohup SIGHUP as well, and so would all that it starts."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Do not measure the workers of xdist as children of this process: pytest-cov measures them, and pauses where it is told."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Measure a worker of xdist once: pytest-cov starts as if it were alone, then as a worker, and pauses only the second one."""
    cov = session.config.pluginmanager.getplugin("_cov")
    if hasattr(session.config, "workerinput") and getattr(cov, "cov_controller", None) is not None:
        cov.cov_controller.cov.stop()
