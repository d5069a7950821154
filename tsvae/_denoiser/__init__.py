"""What the denoiser is made of: reading, scaling, building, training, coding of signals."""
