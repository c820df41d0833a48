"""What speaks HTTP is made of: the worker's own door, and in parts Modal's web app."""
