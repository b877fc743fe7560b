"""Real faults on the real thing, by a seed."""
