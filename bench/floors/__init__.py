"""What the figures are compared to: programs that do the least one could do."""
