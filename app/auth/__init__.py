"""Projects, their keys, and who is asking."""
