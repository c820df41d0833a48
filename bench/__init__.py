"""What is promised of this worker's speed and memory, and how to measure it again."""
