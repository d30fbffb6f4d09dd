"""How a plan, or a whole root, stands: one HTML file that needs nothing else."""
