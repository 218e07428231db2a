"""Hyperparameter search with Optuna: studies that several jobs share and that can be killed."""
