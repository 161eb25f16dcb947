"""What the suites under tools/ share: checks, the server under test, and the wire protocol."""
