"""From a dataset plugin to training, hold-out and test images: decoding, cache, selection of rows."""
