"""How a run is made: requests handed to an engine scope by scope, deadlines kept, rewards charged, rows stored."""
