"""COCO keypoint annotations and images to record shards: python -m tfrecords_tools.write_coco."""
