"""The crash walk: real processes that die at every named step of both flows and of the Nano rail, and are started again."""
