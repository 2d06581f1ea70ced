"""Needs a package that is not there."""

import a_package_that_nobody_has  # noqa: F401 - failing to find it is its purpose
