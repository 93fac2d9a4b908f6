"""A report on a run: one file that opens anywhere, with the decoder in it."""
