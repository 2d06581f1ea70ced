"""The command `tradeskill`. Answers `--version` before anything heavy is imported."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        from tradeskill import __version__

        print(f"tradeskill {__version__}")  # noqa: T201  # the answer
        return
    from tradeskill.faces.cli import run

    run()


if __name__ == "__main__":
    main()
