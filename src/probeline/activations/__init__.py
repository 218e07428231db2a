"""From texts to pooled activations of every layer, in one forward pass, on disk or in memory."""
