"""Where jobs come from, and the outside world behind the core's ports."""
