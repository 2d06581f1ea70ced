"""errors.py: the tree that is drawn is the tree that is there, and the codes that scripts rely on are unique."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tradeskill import errors
from tradeskill.errors import TradeskillError

CLASSES: list[type[TradeskillError]] = [getattr(errors, name) for name in errors.__all__]
DRAWN = re.compile(r"^ {4}(?P<depth>(?:│   |    )*)(?:[├└]── )?(?P<name>[A-Z]\w+)\s+(?:exit (?P<exit>\d+)\s+)?(?P<meaning>\S.*)$")


def drawn() -> dict[str, tuple[str | None, int | None, str]]:
    """Class name -> (parent, exit code where one is given, meaning), as drawn in the docstring."""
    result: dict[str, tuple[str | None, int | None, str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = DRAWN.match(line)
        if match is None or not match["name"].endswith("Error"):
            continue
        depth = 0 if not result else len(match["depth"]) // 4 + 1
        above = [*above[:depth], match["name"]]
        result[match["name"]] = (above[depth - 1] if depth else None, int(match["exit"]) if match["exit"] else None, match["meaning"])
    return result


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    assert {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES if kind is not TradeskillError} == {
        name: parent for name, (parent, _, _) in drawn().items() if parent is not None
    }
    assert [name for name, (parent, _, _) in drawn().items() if parent is None] == ["TradeskillError"]


def test_every_class_is_promised_and_explained() -> None:
    defined = {name for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, Exception)}
    assert defined == set(errors.__all__) == set(drawn())
    assert all(len(meaning) > 10 for _, _, meaning in drawn().values())


def test_the_drawn_exit_codes_are_those_of_the_classes() -> None:
    for name, (parent, code, _) in drawn().items():
        kind = getattr(errors, name)
        if code is not None:
            assert kind.exit_code == code, name
        elif parent is not None:
            assert kind.exit_code == getattr(errors, parent).exit_code, name


def test_codes_are_unique_and_begin_with_the_parent_s() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    for kind in CLASSES:
        parent = kind.__mro__[1]
        if issubclass(parent, TradeskillError) and parent is not TradeskillError:
            assert kind.code.startswith(f"{parent.code}."), kind
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+){0,2}", kind.code)


def test_each_branch_has_an_exit_code_of_its_own_that_no_shell_uses() -> None:
    branches = [kind for kind in CLASSES if kind.__mro__[1] is TradeskillError]
    codes = [kind.exit_code for kind in branches] + [TradeskillError.exit_code]
    assert len(set(codes)) == len(codes)
    assert all(1 <= code < 64 for code in codes)  # 64 and up mean something to sysexits, signals and shells


def test_every_exit_code_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "errors.md").read_text("utf-8")
    for kind in CLASSES:
        assert f"| `{kind.code}` | {kind.exit_code} | `{kind.__name__}` |" in page


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_keeps_its_message_and_its_details(kind: type[TradeskillError]) -> None:
    error = kind("offer web-extract is gone: search again", offer="web-extract")
    assert str(error) == "offer web-extract is gone: search again"
    assert error.details == {"offer": "web-extract"}


def test_unknown_is_no_kind_of_refused() -> None:
    """Whoever catches "no money moved" must not catch "it may have happened"."""
    assert not issubclass(errors.UnknownOutcomeError, errors.RefusedError)
    assert not issubclass(errors.RefusedError, errors.UnavailableError)
