"""MuseTalk's networks and the rules around them, written from published facts."""
