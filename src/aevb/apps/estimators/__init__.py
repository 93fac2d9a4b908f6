"""Estimators of scikit-learn: one fitted density, as an embedding, an imputer, a detector, a synthesizer."""
