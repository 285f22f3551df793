"""What an edge model gets back after the cut: least squares, fine-tuning."""
