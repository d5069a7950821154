"""What the linker is made of: sides, pairs, training, spread, matching."""
