"""Fine-tuning of sequence classifiers: whole models, or adapters (LoRA) on frozen ones."""
