"""Where jobs come from, and the outside world behind the core's ports."""

#: The worker's version, where it is installed and where only its sources are.
__version__ = "0.1.0"
