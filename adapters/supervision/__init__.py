"""The two ends of an engine that lives in a process of its own, and what they say to each other."""
