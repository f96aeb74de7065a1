"""A trained model to one ONNX file, in fp32 or int8, checked against PyTorch before it is written."""

from parvox.export.pipeline import ExportResult, export_model

__all__ = ["ExportResult", "export_model"]
