"""Statistics and contact sheets of record shards: python -m tfrecords_tools.inspect."""
