"""Entry point of `slipway` and `python -m slipway`: light, so that Ctrl-C during imports is no traceback."""

import sys


def main() -> None:
    """Run the command line; exits with a code of `slipway.errors`."""
    try:
        from slipway.cli import main as command_line
    except KeyboardInterrupt:
        print("error: interrupted.", file=sys.stderr)
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
