"""What the service costs, measured: ratios to a named floor, taken in one run, side by side."""
