// Two layers with a ReLU between them learn to blur an image, and print their loss. The values between them stay
// on the device.
//
//     c++ -std=c++17 forward_backward.cpp -o forward_backward $(pkg-config --cflags --libs grilly)
//     ./forward_backward [cpu|INDEX]
#include <grilly.hpp>

#include <cstdlib>
#include <iostream>
#include <string>

using grilly::DeviceTensor;
using grilly::nn::Conv2dOptions;
using grilly::nn::DeviceConv2d;

static void step(DeviceConv2d &layer, float rate) {
    for (auto &parameter : layer.named_parameters()) parameter.value.add_(parameter.grad, -rate);
    layer.zero_grad();
}

static double mean_square(const DeviceTensor &error) {
    double sum = 0;
    for (float value : error.to_host().data) sum += value * value;
    return sum / static_cast<double>(error.shape().elements());
}

int main(int argc, char **argv) try {
    int device = GRILLY_DEVICE_AUTO;  // the best GPU, or else the CPU
    if (argc > 1) device = std::string(argv[1]) == "cpu" ? GRILLY_DEVICE_CPU : std::atoi(argv[1]);
    const grilly::Context context(device);
    std::cout << context.device_info().name << '\n';

    grilly::Array noise({4, 1, 16, 16});
    for (float &value : noise.data) value = static_cast<float>(std::rand() % 2001 - 1000) / 1000;
    const DeviceTensor x(context, noise);
    DeviceConv2d blur(context, Conv2dOptions(1, 1, 3).padding(1).bias(false));
    blur.weight.fill_(1.0f / 9);
    const DeviceTensor wanted = blur.forward(x);

    DeviceConv2d first(context, Conv2dOptions(1, 8, 3).padding(1), 1), second(context, Conv2dOptions(8, 1, 1), 2);
    DeviceTensor error;
    double loss_at_first = 0;
    for (int i = 0; i < 200; ++i) {
        error = sub(second.forward(relu(first.forward(x))), wanted);
        if (i == 0) loss_at_first = mean_square(error);
        const DeviceTensor dy = mul(error, 2 / static_cast<float>(wanted.shape().elements()));
        first.backward(relu_backward(second.backward(dy), second.input()));
        step(first, 0.3f);
        step(second, 0.3f);
    }
    const double loss = mean_square(error);
    std::cout << "loss " << loss_at_first << ", after 200 steps " << loss << '\n';
    return loss < loss_at_first / 10 ? 0 : 1;
} catch (const grilly::Error &error) {
    std::cerr << grilly_status_string(error.status()) << ": " << error.what() << '\n';
    return 1;
}
