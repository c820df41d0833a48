"""How media comes in and finished videos go out."""
