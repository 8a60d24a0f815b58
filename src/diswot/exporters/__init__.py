"""Export of a student to ONNX, torch.export or safetensors, with a model card."""
