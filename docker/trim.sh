#!/bin/sh
# Remove from installed packages what no server loads. Usage: trim.sh FOLDER (a site-packages).
# Where a release calls a file otherwise, this ends the build.
set -eu
cd "$1"

# OpenVINO for a CPU and its own format: without plugins for GPUs and NPUs (the image lacks their
# drivers), headers, and readers of other formats; PyTorch's models are read where it is installed
rm -r openvino/include openvino/cmake openvino/libs/cache.json \
  openvino/libs/libopenvino_intel_gpu_plugin.so openvino/libs/libopenvino_intel_npu_plugin.so
also=ir
[ ! -d torch ] || also=pytorch
find openvino/libs -name 'libopenvino_*_frontend.so*' \
  ! -name '*_ir_frontend.so*' ! -name "*_${also}_frontend.so*" -delete

# libraries without their own tests
for name in numpy scipy sklearn sympy networkx; do
  [ ! -d "$name" ] || find "$name" -type d -name tests -prune -exec rm -r {} +
done

# PyTorch without headers
[ ! -d torch ] || rm -r torch/include

# CUDA without headers, code to link programs with (.a, .bc), and the solver for several GPUs, which
# PyTorch does not use
if [ -d nvidia ]; then
  find nvidia -type d -name include -prune -exec rm -r {} +
  find nvidia \( -name '*.a' -o -name '*.bc' -o -name 'libcusolverMg.so*' \) -delete
fi
