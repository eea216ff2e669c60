"""Where `bot4-runtime` begins: it loads the command line and runs it."""

from bot4_runtime.interrupt import Loading


def main() -> None:
    """Load the command line, which takes a moment that Ctrl-C may come in, and run it."""
    with Loading():
        from bot4_runtime import cli
    cli.main()


if __name__ == "__main__":
    main()
