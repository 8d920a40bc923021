"""What the measured programs print, what we write, and how a person reads it."""
