"""The engine: everything between a face, a voice and a finished clip."""
