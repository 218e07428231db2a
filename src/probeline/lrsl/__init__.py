"""Logits reranking via semantic labels: hard texts repaired by the meaning of their labels.

Huang, Huang, Xu, Li and Xiao 2024, Findings of EMNLP, pages 11250-11262.
"""
