"""A run's model for other programs: ONNX, torch.export, a folder for a model hub, a static page."""
