"""Model file in, embeddings and decisions out; nothing here imports torch."""
