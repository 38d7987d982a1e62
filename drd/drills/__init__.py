"""Restore drills: what to check, how to judge it, and the evidence that is kept."""
