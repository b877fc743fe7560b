"""Effects: the engine, the backends, the journal's projections."""
