"""Measured step times, and the time they predict."""
