"""How a verdict looks on a terminal."""

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from examples.demo.engine import Target
from examples.demo.verdict import Verdict

Row = tuple[str, int | str, str]


def table(verdict: Verdict, *, kills: Mapping[Target, int], seconds: float) -> RenderableType:
    """Fits in 80 columns."""
    grid = Table(box=SIMPLE, show_header=False, show_edge=False, pad_edge=False)
    grid.add_column("what")
    grid.add_column("count", justify="right")
    grid.add_column("meaning", style="dim")
    for section in (
        of_requests(verdict),
        of_effects(verdict),
        of_kills(verdict, kills, seconds),
        of_zeros(verdict),
    ):
        for what, count, meaning in section:
            grid.add_row(what, str(count), meaning)
        grid.add_section()
    return Group(grid, "", *lost(verdict), conclusion(verdict))


def of_requests(verdict: Verdict) -> list[Row]:
    promised = sum(answer.promised for answer in verdict.answers)
    refused = sum(answer.refused for answer in verdict.answers)
    return [
        ("Requests sent", len(verdict.answers), "each once; no client repeats anything"),
        ("  answered", promised, "202: their calls are promised"),
        ("  refused", refused, "an error: none of it may run"),
        ("  unanswered", len(verdict.answers) - promised - refused, "broken off by a kill: nothing promised"),
        ("Calls promised", len(verdict.promises), "two in a sign-up, one in an upload"),
        ("  recorded", len(verdict.evidence.records), "more, if a kill came before the answer"),
    ]


def of_effects(verdict: Verdict) -> list[Row]:
    emails, reports, lines = (verdict.of(what) for what in ("email", "report", "audit line"))
    repeated = sum(count > 1 for count in verdict.evidence.emails.values())
    stopped = [promise for promise in lines if promise.stopped_by_a_kill]
    written = sum(promise.kept for promise in stopped)
    return [
        ("Emails promised", len(emails), "declared tasks, with retries"),
        ("  arrived", sum(promise.kept for promise in emails), "different emails at the SMTP server"),
        ("  more than once", repeated, "allowed: killed between sent and noted"),
        ("Files promised", len(reports), "declared tasks"),
        ("  processed", sum(promise.kept for promise in reports), "hash, counts, size and thumbnail right"),
        ("Audit lines promised", len(lines), "plain functions: started at most once"),
        ("  written", sum(promise.kept for promise in lines), "lines in the log"),
        ("  stopped by a kill", len(stopped), f"failed WorkerLost; {written} had written first"),
    ]


def of_kills(verdict: Verdict, kills: Mapping[Target, int], seconds: float) -> list[Row]:
    return [
        ("Kills", sum(kills.values()), "kill -9 under load, then a new start"),
        *(
            (f"  of {target.value}", kills[target], "")
            for target in Target
            if len(kills) > 1 and kills[target]
        ),
        ("  tasks run again", verdict.ran_again, "declared ones that a kill interrupted"),
        ("Seconds", f"{seconds:.1f}", "from the first start to the last record"),
    ]


def of_zeros(verdict: Verdict) -> list[Row]:
    return [
        ("Lost", len(verdict.lost), "must be 0: neither done nor listed"),
        ("Plain functions run twice", len(verdict.twice), "must be 0"),
        ("Refused but run", len(verdict.refused_but_ran), "must be 0"),
    ]


def lost(verdict: Verdict, most: int = 10) -> list[Text]:
    lines = [Text(f"lost: {p.what} {p.id}: {p.record}, {'' if p.kept else 'not '}done") for p in verdict.lost]
    more = [Text(f"... and {len(lines) - most} more")] if len(lines) > most else []
    return lines[:most] + more


def conclusion(verdict: Verdict) -> Text:
    if verdict.holds:
        return Text(
            "OK: all that was promised was done or is listed, and nothing plain ran twice.", style="green"
        )
    return Text("BROKEN: a promise was not kept.", style="bold red")
