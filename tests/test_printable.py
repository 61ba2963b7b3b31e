"""Names as they may be shown."""

import os
import sys

from razortools.printable import printable, printable_name


def test_whatever_the_code_point_nothing_comes_out_that_a_terminal_obeys() -> None:
    for number in range(sys.maxunicode + 1):
        shown = printable(chr(number))
        assert shown.isprintable(), hex(number)
        assert shown == chr(number) or not chr(number).isprintable(), hex(number)


def test_different_bytes_look_different() -> None:
    shown = {printable_name(bytes([byte])) for byte in range(256)}
    assert len(shown) == 256
    assert printable_name(b"caf\xc3\xa9 \x9b31m \xff\n") == "café \\x9b31m \\xff\\n"


def test_text_around_what_is_written_out_stays() -> None:
    assert printable("a\u202eb\u2028c\x1b[31m") == "a\\u202eb\\u2028c\\x1b[31m"
    assert printable(os.fsdecode(b"plain/name")) == "plain/name"
