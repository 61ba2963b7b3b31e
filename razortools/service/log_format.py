"""How a line of the log looks: for people, for journald, or as JSON for machines. What is said is the same.

Whoever logs may hand over fields with the message (`extra=`): those in FIELDS become keys of the JSON. The only door to
structlog.
"""

import logging
import os

FIELDS = ("operation", "path", "inode", "advice", "seconds", "phases")
_NAME = "mount.razorfs[%(process)d]"
PEOPLE = f"%(asctime)s {_NAME} %(levelname)s %(message)s"
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}  # syslog(3)


class ForJournald(logging.Formatter):
    """Lines with a priority before them, as sd-daemon(3) has it; the journal knows time and process by itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, each of its lines with the priority."""
        mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


def of_file() -> logging.Formatter:
    """Return how lines for people look."""
    return logging.Formatter(PEOPLE)


def of_syslog() -> logging.Formatter:
    """Return how lines for syslog look, which adds time, host and level."""
    return logging.Formatter(f"{_NAME}: %(message)s")


def of_stderr() -> logging.Formatter:
    """Return how lines on stderr look; it may be journald's."""
    return ForJournald("%(message)s") if is_journald(2) else of_file()


def is_journald(descriptor: int) -> bool:
    """Whether *descriptor* leads to journald, which says so in the environment: device and inode of what it listens to."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def as_json(prefix: str = "") -> logging.Formatter:
    """Return lines of JSON: time, level, process, event, and the fields that came with it."""
    import structlog  # late: few ask for it, and it takes a tenth of a second

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(allow=FIELDS),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.CallsiteParameterAdder({structlog.processors.CallsiteParameter.PROCESS}),
        structlog.processors.format_exc_info,
    ]
    json = structlog.processors.JSONRenderer(ensure_ascii=True)
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, json, lambda _, __, line: prefix + str(line)],
        foreign_pre_chain=shared,
    )
