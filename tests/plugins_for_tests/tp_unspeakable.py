"""Fails with an exception that cannot even be shown."""


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


raise UnspeakableError
