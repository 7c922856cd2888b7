"""Flow-matching mathematics: no model, no files."""
