"""The page for users says what each combination can, and no more."""

from tests.conformance.combinations import COMBINATIONS, Capability
from tests.support import ROOT


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_says_what_each_combination_can() -> None:
    page = (ROOT / "docs" / "celery.md").read_text()
    _, *lines = page[page.index("## Which ledger with which executor") :].partition("| |")[2].splitlines()
    names = cells(page[page.index("| | SQLite") :].splitlines()[0])[1:]
    assert names == [one.name for one in COMBINATIONS]
    rows = {row[0]: row[1:] for row in map(cells, lines) if len(row) == len(names) + 1}
    takeover = rows["what a killed process ran is taken over after"]
    assert takeover == [f"{one.takeover:g} s" for one in COMBINATIONS]
    for capability in Capability:
        assert rows[capability] == ["yes" if one.can(capability) else "no" for one in COMBINATIONS]
