"""What the sweep must know of a format that hqq writes, once it is loaded in transformers."""

import torch


class Hqq:
    """Python's hqq, in transformers 4.57."""

    options = {}

    def __init__(self):
        from hqq.core.quantize import HQQLinear

        self.layer = HQQLinear

    def is_layer(self, module):
        return isinstance(module, self.layer)

    def weight(self, module):
        return module.dequantize().float()

    def skipped(self, config):
        return config["skip_modules"]


class CompressedTensors:
    """compressed-tensors, in transformers 5."""

    options = {"to": "compressed-tensors"}

    def __init__(self):
        import compressed_tensors  # noqa: F401: said here where it is missing, not for each class

    def is_layer(self, module):
        return getattr(module, "quantization_scheme", None) is not None

    @torch.no_grad()
    def weight(self, module):
        """What it computes of the identity: its weights, transposed."""
        out = module(torch.eye(module.in_features))
        return (out - module.bias if module.bias is not None else out).T.float()

    def skipped(self, config):
        return config.get("ignore") or []


FORMATS = {"hqq": Hqq, "compressed-tensors": CompressedTensors}
