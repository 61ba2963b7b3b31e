"""The daemon's log: one logger for the service, to syslog, a file or stderr."""

import logging
import logging.handlers
import os
import sys
from contextlib import suppress

from razortools.errors import UsageError
from razortools.service import log_format
from razortools.service.options import MountOptions

LOGGER_NAME = "razorfs"
SYSLOG_SOCKET = "/dev/log"
STDERR = 2

log = logging.getLogger(LOGGER_NAME)
log.addHandler(logging.NullHandler())  # until start(): nothing, instead of Python's last resort


def start(options: MountOptions, *, foreground: bool) -> None:
    """Send what the service logs to where *options* say. Raises UsageError if that place cannot be written to."""
    handler = _handler(options.log or ("stderr" if foreground else "syslog"), as_json=options.log_format == "json")
    handler.handleError = _Complaint()  # type: ignore[method-assign]
    for name in (LOGGER_NAME, "pyfuse3"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(options.log_level.upper() if name == LOGGER_NAME else logging.WARNING)


def set_level(level: str) -> None:
    """Log what is at least so grave."""
    log.setLevel(level.upper())


def reopen() -> None:
    """Open the log's file again, after somebody has moved it away. If that fails the log stays where it is, and says so."""
    for handler in log.handlers:
        if isinstance(handler, LogFile):
            refusal = handler.reopen()
            if refusal:
                log.warning("%s: cannot be opened again: %s", handler.baseFilename, refusal)


def descriptor() -> int:
    """Return the descriptor that the log is written to, stderr's if it has none: for what must not go through Python."""
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is not None:
            return int(handler.stream.fileno())
    return STDERR


class _Complaint:
    """Says once, as long as somebody may see it, that the log cannot be written. Python's own way shows a traceback each time."""

    def __init__(self) -> None:
        self._is_said = False

    def __call__(self, record: logging.LogRecord) -> None:
        if self._is_said:
            return
        self._is_said = True
        refused = sys.exc_info()[1]
        why = refused.strerror if isinstance(refused, OSError) else refused
        with suppress(OSError):
            os.write(STDERR, f"mount.razorfs: the log cannot be written: {why}\n".encode())


class LogFile(logging.FileHandler):
    """A log in a file that others may rotate: what is at its path is opened again when asked, and when the file was moved away.

    Writing to the log never raises: whoever does has a request to answer.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to a new file if the old one was moved away."""
        if self._was_moved():
            self.reopen()
        super().emit(record)

    def reopen(self) -> str:
        """Open what is at the path now; return what kept that from happening, and the old file stays in use."""
        try:
            stream = self._open()
        except OSError as refused:
            return refused.strerror or str(refused)
        before = self.setStream(stream)
        if before is not None:
            before.close()
        return ""

    def _was_moved(self) -> bool:
        if self.stream is None:
            return True
        try:
            return not os.path.samestat(os.stat(self.baseFilename), os.fstat(self.stream.fileno()))
        except OSError:
            return True


def _handler(place: str, *, as_json: bool) -> logging.Handler:
    """Return the handler for *place*: ``syslog``, ``stderr`` or a path."""
    handler: logging.Handler
    if place == "syslog":
        if not os.path.exists(SYSLOG_SOCKET):
            return logging.NullHandler()  # a machine without a syslog; there is no place left to say so
        handler = logging.handlers.SysLogHandler(SYSLOG_SOCKET, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.setFormatter(log_format.as_json(f"mount.razorfs[{os.getpid()}]: ") if as_json else log_format.of_syslog())
        return handler
    if place == "stderr":
        handler = logging.StreamHandler(sys.stderr)
        formatter = log_format.of_stderr
    else:
        try:
            handler = LogFile(place)
            formatter = log_format.of_file
        except OSError as failed:
            raise UsageError(f"option log: {place}: cannot be written to: {failed.strerror}") from None
    handler.setFormatter(log_format.as_json() if as_json else formatter())
    return handler
