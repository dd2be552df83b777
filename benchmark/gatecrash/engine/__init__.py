"""Training and what runs beside it: augmentation, batching, masking, pruning."""
