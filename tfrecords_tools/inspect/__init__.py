"""What record shards hold: python -m tfrecords_tools.inspect."""
