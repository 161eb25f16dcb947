"""Recipes that the documentation gives to applications, as code that the suites use themselves."""

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
