"""What is kept when training is over."""
