"""Fails with a message that would clear the terminal and forge a second line."""

raise ValueError("\x1b[2Jall is\nwell")
