"""How an application learns whether a chain is done (docs/CONCEPTS.md), for the suites."""

import re

from .checks import require
from .server import ROOT

ACCEPTED = ("created", "exists")


def chain_done(statuses):
    """Returns whether a linked chain has happened, now or in an earlier attempt with the same ids.

    Only for ids that were never used outside of the chain: then the first event decides. If it is
    `created`, so is the whole chain. If it `exists`, an earlier attempt succeeded: a chain happens
    entirely or not at all, and this attempt stops at its first event. Any other first status means
    that nothing happened. `documented_settle` also notices ids that were used elsewhere.
    """
    return statuses[0] in ACCEPTED


def chain_reason(statuses):
    """Returns the reason why a chain did not happen; none if it did."""
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
