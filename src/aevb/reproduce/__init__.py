"""The experiments of arXiv 1312.6114, rerun: `aevb reproduce`."""
