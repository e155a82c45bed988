"""What a stream has counted: sums and recent scores per cell, and sums per bucket of a window."""
