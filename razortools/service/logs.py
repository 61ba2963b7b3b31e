"""The daemon's log: one logger for the service, to syslog, a file or stderr."""

import logging
import logging.handlers
import os
import sys

from razortools.errors import UsageError
from razortools.service.options import MountOptions

LOGGER_NAME = "razorfs"
SYSLOG_SOCKET = "/dev/log"

log = logging.getLogger(LOGGER_NAME)
log.addHandler(logging.NullHandler())  # until start(): nothing, instead of Python's last resort


def start(options: MountOptions, *, foreground: bool) -> None:
    """Send what the service logs to where *options* say. Raises UsageError if that place cannot be written to."""
    handler = _handler(options.log or ("stderr" if foreground else "syslog"))
    for name in (LOGGER_NAME, "pyfuse3"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(options.log_level.upper() if name == LOGGER_NAME else logging.WARNING)


def _handler(place: str) -> logging.Handler:
    """Return the handler for *place*: ``syslog``, ``stderr`` or a path."""
    handler: logging.Handler
    if place == "syslog":
        if not os.path.exists(SYSLOG_SOCKET):
            return logging.NullHandler()  # a machine without a syslog; there is no place left to say so
        handler = logging.handlers.SysLogHandler(SYSLOG_SOCKET, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.setFormatter(logging.Formatter("mount.razorfs[%(process)d]: %(message)s"))
        return handler
    if place == "stderr":
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.handlers.WatchedFileHandler(place)  # rotated by others: opened again when it is moved away
        except OSError as failed:
            raise UsageError(f"option log: {place}: cannot be written to: {failed.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s mount.razorfs[%(process)d] %(levelname)s %(message)s"))
    return handler
