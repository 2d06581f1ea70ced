"""Known bugs, planted one at a time into a copy of the packages: each must be caught. See `__main__`."""
