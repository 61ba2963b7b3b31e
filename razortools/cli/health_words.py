"""What razorfs-health says: lines for people, a document for programs, a line for Nagios and its kin."""

from collections.abc import Callable, Iterable

from razortools.cli import render
from razortools.engine.health import Health, Thresholds, Verdict
from razortools.printable import printable

FillPercents = Callable[[Health], Iterable[tuple[float, float]]]  # of the image and of its journal, if that is known

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.CRITICAL: "bold red", Verdict.UNKNOWN: "magenta"}


def show(found: list[Health], *, named: bool) -> None:
    """Show the reasons for people, a line each."""
    if not found:
        render.out("UNKNOWN  Mounts: no RAZORFS is mounted here; name an image")
    for one in found:
        if named:
            render.out(printable(f"{one.image}: {one.verdict.name}"))
        for reason in one.reasons:
            text = printable(f"{reason.verdict.name:<8} {reason.subject}: {reason.text}")
            render.styled(text, _STYLES[reason.verdict])


def document(found: list[Health], verdict: Verdict) -> dict[str, object]:
    """Return the JSON document."""
    return {
        "verdict": verdict.name.lower(),
        "exit_code": int(verdict),
        "images": [
            {
                "image": one.image,
                "verdict": one.verdict.name.lower(),
                "reasons": [
                    {"verdict": reason.verdict.name.lower(), "subject": reason.subject, "text": reason.text}
                    for reason in one.reasons
                ],
                "figures": one.figures,
                "live": one.live,
            }
            for one in found
        ],
    }


def nagios_line(found: list[Health], verdict: Verdict, thresholds: Thresholds, fill_percents: FillPercents) -> str:
    """Return the line of a monitoring plugin: verdict, what is wrong, then performance data behind a bar."""
    wrong = [
        f"{one.image}: {reason.subject}: {reason.text}"
        for one in found
        for reason in one.reasons
        if reason.verdict is not Verdict.OK
    ]
    data = [
        f"'{name} space'={space}%;{thresholds.space_warning};{thresholds.space_critical}"
        f" '{name} journal'={journal}%;{thresholds.journal_warning}"
        for one in found
        if (name := one.image.replace("'", "''").replace("=", "-"))  # as the plugins' guidelines have it
        for space, journal in fill_percents(one)
    ]
    text = "; ".join(wrong) or ("all is well" if found else "no RAZORFS is mounted")
    line = f"RAZORFS {verdict.name} - {text.replace('|', '/')}"
    return printable(f"{line} | {' '.join(data)}" if data else line)
