"""Names as they may be shown: nothing in an image can do things to a terminal, or to the lines of a log."""

import os


def printable(text: str) -> str:
    """Return *text* with all written out that does not print: control characters, line ends, what turns the direction of writing,
    and bytes that are no UTF-8, which os.fsdecode() keeps as lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def printable_name(name: bytes) -> str:
    """Return the *name* or path as printable text."""
    return printable(os.fsdecode(name))


def _escaped(character: str) -> str:
    """Return a character that does not print as Python writes it; a stray byte as the byte that it is."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
