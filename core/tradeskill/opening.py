"""Which payment plugin may be opened, and what becomes of one that hangs or breaks while it opens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tradeskill.errors import BrokenPluginError, ConfigError, PluginError, TradeskillError

if TYPE_CHECKING:
    from tradeskill.plugins import Plugin

__all__ = ["check_allowed", "opened"]

OPEN_SECONDS: Final = 120.0  # what an object's own open() may take, unless configured for strangers'; it may ask a slow node


def check_allowed(plugin: Plugin, allow: Sequence[str], source: Path | None) -> None:
    """ConfigError with the line to write, unless the plugin comes with tradeskill or its owner has allowed it; PluginError where its files were changed.

    An entry with a hash allows the package as it is installed only while its RECORD, and every file listed there, is what it was.
    """
    if plugin.shipped:
        return
    names = (plugin.name, f"{plugin.name}@{plugin.package}")
    pinned = [entry.partition("@sha256:") for entry in allow]
    hashes = [digest for name, _, digest in pinned if name in names]
    who = f"plugin {plugin.name} ({plugin.package} {plugin.version})"
    if "" in hashes or (hashes and plugin.record.removeprefix("sha256:") in hashes):
        return
    if hashes:
        raise ConfigError(
            f"{source}: plugins.allow: {who} is another than the one that was allowed: it is now {plugin.record}; "
            f"if you trust this one too, write {plugin.name}@{plugin.record}"
        )
    spends = f", which says that it spends {', '.join(plugin.manifest.spends)}," if plugin.manifest and plugin.manifest.spends else ""
    line = f'plugins: {{allow: ["{plugin.name}"]}}'
    with suppress(PluginError):  # it has no record to pin, or was changed: by name it is still the owner's choice
        line += f' (or ["{plugin.name}@{plugin.record}"], for this installation only)'
    raise ConfigError(f"{source}: {who}{spends} would touch money and is not allowed to; if you trust it, add the line: {line}")


async def opened(plugin: Plugin, opening: Awaitable[None], seconds: float = OPEN_SECONDS) -> None:
    """Await a plugin's `open()`; what is no error of ours, and what takes too long, is a PluginError with the plugin's name."""
    seconds = OPEN_SECONDS if plugin.shipped else seconds
    try:
        await asyncio.wait_for(opening, seconds)
    except BrokenPluginError as error:
        raise PluginError(str(error)) from error
    except TradeskillError:
        raise
    except TimeoutError as error:
        raise PluginError(f"plugin {plugin.name} ({plugin.package}): open() did not return within {seconds:g} s") from error
    except Exception as error:
        words = " ".join(str(error).split())
        raise PluginError(f"plugin {plugin.name} ({plugin.package}): open(): {type(error).__name__}: {words:.200}") from error
