"""What the sweep must know of a format that hqq writes, once it is loaded in transformers."""

import torch
from torch import nn


class Hqq:
    """Python's hqq, in transformers 4.57."""

    options = {}

    def __init__(self):
        from hqq.core.quantize import HQQLinear

        self.layer = HQQLinear

    def ready(self, model):
        """What a layer needs before it is called by itself: nothing."""

    def is_layer(self, module, _):
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

    def ready(self, model):
        """Unpacks its layers, which the library does as a model is first called, and not as a layer is."""
        for hook in list(model._forward_pre_hooks.values()):
            if hook.__name__ == "ct_decompress_hook":
                hook(model, ())
        for parameter in model.parameters():  # experts keep the type of their scales
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()

    def is_layer(self, module, plain):
        """Whether it is one that was packed: `plain` is the weight of the float model, None where that has no such module."""
        if getattr(module, "quantization_scheme", None) is not None:
            return True
        if not isinstance(module, nn.Linear) or plain is None or module.weight is None or module.weight.is_meta:
            return False
        return not torch.equal(module.weight, plain)  # unpacked as it was read

    @torch.no_grad()
    def weight(self, module):
        """What it computes of the identity: its weights, transposed."""
        bias, module.bias = module.bias, None  # a sum would round
        out = module(torch.eye(module.in_features))
        module.bias = bias
        return out.T.float()

    def skipped(self, config):
        return config.get("ignore") or []


FORMATS = {"hqq": Hqq, "compressed-tensors": CompressedTensors}
