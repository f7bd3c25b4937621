"""Timings, side by side with the script that people write first."""
