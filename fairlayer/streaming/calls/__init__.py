"""How a call of a stream is read, answered on the shortest way, and undone where it fails."""
