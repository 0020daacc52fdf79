"""From raw files to batches on the device: sources -> interactions -> split -> sequences -> batches."""
