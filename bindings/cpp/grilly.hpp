// libgrilly for C++17: convolution layers on any Vulkan GPU, or on the CPU.
//
//     grilly::Context context;                                          // the best device there is
//     grilly::nn::Conv2d conv(context, grilly::nn::Conv2dOptions(3, 16, 3).stride(2).padding(1));
//     grilly::Array y = conv.forward(x);                                // [N, 3, H, W] -> [N, 16, P, Q]
//     grilly::Array dx = conv.backward(dy);                             // adds to conv.weight_grad, conv.bias_grad
//
//     grilly::nn::DeviceConv2d on_device = conv.to_device(context);     // the same on tensors in device memory
//     grilly::DeviceTensor h = relu(on_device.forward(grilly::DeviceTensor(context, x)));
//     on_device.weight.add_(on_device.weight_grad, -0.1f);              // once there is a gradient
//
// Rooms, each on those before it: core.hpp has errors, Context and Buffer; tensor.hpp has arrays in host memory and
// views; device_tensor.hpp has tensors in device memory and element-wise operations; conv2d.hpp has convolutions
// without parameters (Conv2d, Weights, Plan) and calls under way (Ticket); nn.hpp has layers that own their parameters, in the manner of libtorch.
// Link with libgrilly; everything here is inline.
//
// Errors: every operation that can fail has two forms. `create` and `try_*` return a Result or a grilly_status and
// never throw by themselves; constructors and the names without `try_` throw grilly::Error, and exist only where the
// compiler has exceptions on. With -fno-exceptions, std::vector ends the program when host memory is exhausted.
//
// Threads: the owners of handles may be used by any number of threads at once (moving from one, or assigning to it,
// needs it alone); the caller orders access to the contents of buffers and tensors. A layer remembers its input, so it
// belongs to one thread at a time; layers share a context freely.
#ifndef GRILLY_HPP
#define GRILLY_HPP

#include "grilly/conv2d.hpp"
#include "grilly/core.hpp"
#include "grilly/device_tensor.hpp"
#include "grilly/nn.hpp"
#include "grilly/tensor.hpp"

#endif
