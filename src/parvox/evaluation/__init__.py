"""Embeddings and trials to scores, error rates, intervals and a report."""
