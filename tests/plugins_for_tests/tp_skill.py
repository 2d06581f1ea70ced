"""A skill plugin: it only says where its tools are."""

from tradeskill.hookspecs import hookimpl


@hookimpl
def tradeskill_skill() -> str:
    return "tp_skill_tools.which_is_not_imported"
