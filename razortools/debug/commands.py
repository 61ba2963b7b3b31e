"""All commands of the shell, and help about them.

One declaration of a command serves its parsing, help, completion and manual page.
"""

import argparse

from razortools.debug import (
    administration,
    archive,
    attributes,
    blocks,
    changing,
    comparison,
    compressing,
    contents,
    dumping,
    features,
    identity,
    listing,
    navigation,
    placement,
    rehearsal,
    resizing,
    rewriting,
    searching,
    setting,
    structures,
    transactions,
    treeview,
    undeleting,
    verifying,
    whois,
)
from razortools.debug.answers import Answer, Lines, Several, Table
from razortools.debug.session import Command, Session, Words
from razortools.errors import UsageError


def show_help(session: Session, options: argparse.Namespace) -> Answer:
    """help: all commands, or one with its options and examples."""
    if options.command is None:
        return _all_commands()
    command = COMMANDS.get(options.command)
    if command is None:
        raise UsageError(f"help: there is no command {options.command}; 'help' lists them")
    usage, told = command.words.usage_line(), list(command.words.told())
    width = max((len(name) for name, _ in told), default=0)
    lines = [usage, f"{command.summary[:1].upper()}{command.summary[1:]}."]
    lines += ["Needs -w, and is made durable at once."] if command.writes else []
    lines += [f"  {name.ljust(width)}  {meaning}" for name, meaning in told]
    lines += [f"example: {example}" for example in command.examples]
    data = {"usage": usage, "summary": command.summary, "options": dict(told), "examples": command.examples}
    return Lines(lines, data)


def _all_commands() -> Answer:
    """Return the table of all commands, topic by topic."""
    parts: list[Answer] = []
    for topic, commands in TOPICS.items():
        rows = [(command.words.short_line(), command.summary) for command in commands]
        parts += [Lines(["", topic] if parts else [topic]), Table(("command", "what it does"), rows, None)]
    parts.append(Lines(["", "'help COMMAND' shows options and examples; COMMAND | PROGRAM gives the output to a program."]))
    data = [
        {"usage": command.words.usage_line().removeprefix("usage: "), "summary": command.summary, "topic": topic}
        for topic, commands in TOPICS.items()
        for command in commands
    ]
    return Several(parts, data)


_HELP = Words("help")
_HELP.add_argument("command", nargs="?", metavar="COMMAND")

TOPICS: dict[str, tuple[Command, ...]] = {
    "Files": (
        *navigation.COMMANDS,
        *listing.COMMANDS,
        *searching.COMMANDS,
        *contents.COMMANDS,
        *archive.COMMANDS,
        *attributes.COMMANDS,
    ),
    "Changing files": (*changing.COMMANDS, *rewriting.COMMANDS, *identity.COMMANDS, *features.COMMANDS, *resizing.COMMANDS),
    "Structures": (*structures.COMMANDS, *administration.COMMANDS, *transactions.COMMANDS, *treeview.COMMANDS, *blocks.COMMANDS),
    "Places": (*placement.COMMANDS, *compressing.COMMANDS, *whois.COMMANDS, *verifying.COMMANDS, *comparison.COMMANDS),
    "Surgery, with -w": (*setting.COMMANDS, *undeleting.COMMANDS),
    "Rehearsal": (*rehearsal.COMMANDS, *dumping.COMMANDS),
    "Shell": (Command("help", "list the commands, or explain one", _HELP, show_help, ("help put",)),),
}
COMMANDS: dict[str, Command] = {command.name: command for commands in TOPICS.values() for command in commands}
