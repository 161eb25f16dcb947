#!/usr/bin/env python3
"""Runs a suite against a server of its own in production mode: `against.py COMMAND [WORD …]`.

The word `{address}` in the command stands for the server's address. The exit code is that of the
suite; it is 1 if the server ended, or did not end in good order afterwards.
"""

import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from harness.server import (Server, ServerFailed, format_file, remove_directory,  # noqa: E402
                            scratch_directory)


def main():
    """Runs the suite."""
    directory = scratch_directory("against")
    server = Server(directory / "ledger", development=False)
    try:
        format_file(server.path, development=False)
        server.start()
        address = f"127.0.0.1:{server.port}"
        words = [address if word == "{address}" else word for word in sys.argv[1:]]
        code = subprocess.run(words, check=False).returncode
        if not server.is_running():
            raise ServerFailed(server.describe_end())
        server.stop()
    except (ServerFailed, OSError, subprocess.SubprocessError) as failure:
        print(f"FAILED: {failure}", flush=True)
        sys.exit(1)
    finally:
        server.kill()
    if code == 0:
        remove_directory(directory)
    sys.exit(code)


if __name__ == "__main__":
    main()
