"""All commands of the shell, and help about them."""

import argparse

from razortools.debug import contents, listing, structures
from razortools.debug.answers import Answer, Lines, Table
from razortools.debug.session import Command, Session, Words
from razortools.errors import UsageError


def show_help(session: Session, options: argparse.Namespace) -> Answer:
    """help: all commands, or one with examples."""
    if options.command is None:
        rows = [(command.words.usage_line().removeprefix("usage: "), command.summary) for command in COMMANDS.values()]
        return Table(("command", "what it does"), rows, [{"usage": usage, "summary": summary} for usage, summary in rows])
    command = COMMANDS.get(options.command)
    if command is None:
        raise UsageError(f"help: there is no command {options.command}; 'help' lists them")
    usage = command.words.usage_line()
    lines = [usage, command.summary, *(f"example: {example}" for example in command.examples)]
    return Lines(lines, {"usage": usage, "summary": command.summary, "examples": command.examples})


_HELP = Words("help")
_HELP.add_argument("command", nargs="?", metavar="COMMAND")

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        *listing.COMMANDS,
        *contents.COMMANDS,
        *structures.COMMANDS,
        Command("help", "list the commands, or explain one", _HELP, show_help, ("help put",)),
    )
}
