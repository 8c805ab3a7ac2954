"""onnxruntime's own quantizer: quantize.py INPUT OUTPUT BITS GROUP SYMMETRIC ACCURACY_LEVEL"""

import sys

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

source, target = sys.argv[1:3]
bits, group, symmetric, level = map(int, sys.argv[3:7])
config = DefaultWeightOnlyQuantConfig(
    block_size=group, is_symmetric=bool(symmetric), accuracy_level=level, bits=bits
)
quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
quantizer.process()
onnx.save(quantizer.model.model, target)
