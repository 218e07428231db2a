"""In-context learning: a causal language model reads examples, then says which label fits best."""
