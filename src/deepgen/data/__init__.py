"""Training data: sources in the layouts that exist on disk, their mixture, and batches for the engine."""
