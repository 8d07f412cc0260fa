"""A run on disk: its schema, how shards and the view over them are written, how they are read."""
