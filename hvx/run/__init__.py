"""A run: the plan of its shards, the work on one shard, and the loop on one machine."""
