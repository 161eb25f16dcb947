"""Recipes that the documentation gives to applications, as code that the suites use themselves."""

import re

from .checks import require
from .server import ROOT

ACCEPTED = ("created", "exists")


def chain_done(statuses):
    """Returns whether a linked chain has happened, now or in an earlier attempt with the same ids.

    The first event decides. If it is `created`, so is the whole chain. If it `exists`, an earlier
    attempt succeeded: a chain happens entirely or not at all. This attempt then stops at the first
    event, so all others say `linked_event_failed`. Any other first status means that nothing
    happened: the one that is not `linked_event_failed` is the reason.
    """
    return statuses[0] in ACCEPTED


def chain_reason(statuses):
    """Returns why a chain did not happen; none if it did."""
    if chain_done(statuses):
        return None
    return next(status for status in statuses if status != "linked_event_failed")


def documented_settle():
    """Returns the function `settle` of `chain.py` as docs/CONCEPTS.md shows it.

    It sends a chain, for the first time or again, and returns none if it is done, else the reason.
    """
    page = (ROOT / "docs" / "CONCEPTS.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- file: chain\.py -->\n```python\n(.*?)```", page, re.DOTALL)
    require(found, "docs/CONCEPTS.md shows no chain.py")
    names = {}
    exec(found.group(1), names)  # noqa: S102 (our own documentation)
    return names["settle"]
