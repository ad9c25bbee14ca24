"""The real engine on CPU with tiny random weights: installer, launcher, client and demo."""
