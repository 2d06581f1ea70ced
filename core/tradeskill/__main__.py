"""The command `tradeskill`. Answers `--version` before anything heavy is imported."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        from tradeskill import __version__

        print(f"tradeskill {__version__}")  # noqa: T201  # the answer
        return
    import atexit
    import gc

    gc.disable()  # imports make no garbage, and looking for it takes a third of a short command's time; on again when a command runs
    atexit.register(gc.freeze)  # the same at the end
    from tradeskill.faces.cli import run

    run()


if __name__ == "__main__":
    main()
