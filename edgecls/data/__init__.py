"""Photos and labels in, batches of pixels out: sources, splits, preprocessing and the tf.data pipeline."""
