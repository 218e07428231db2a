"""Models: where they lie, what shape they have, and their bodies, frozen."""
