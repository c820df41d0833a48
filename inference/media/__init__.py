"""The only code that lets ffmpeg open a stranger's file."""
