"""``python -m bot4_pipelines``: the command line."""

from bot4_pipelines.cli import main

if __name__ == "__main__":
    main()
