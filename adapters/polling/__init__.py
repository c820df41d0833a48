"""What the poll loop is made of."""
