// Two layers with a ReLU between them learn to blur an image, and print their loss.
//
//     c++ -std=c++17 forward_backward.cpp -o forward_backward $(pkg-config --cflags --libs grilly)
//     ./forward_backward [cpu|INDEX]
#include <grilly.hpp>

#include <cstdlib>
#include <iostream>
#include <string>

using grilly::Array;
using grilly::nn::Conv2d;
using grilly::nn::Conv2dOptions;

static void step(Conv2d &layer, float rate) {
    for (std::size_t i = 0; i < layer.weight.data.size(); ++i) layer.weight.data[i] -= rate * layer.weight_grad.data[i];
    for (std::size_t i = 0; i < layer.bias.data.size(); ++i) layer.bias.data[i] -= rate * layer.bias_grad.data[i];
    layer.zero_grad();
}

int main(int argc, char **argv) try {
    int device = GRILLY_DEVICE_AUTO;  // the best GPU, or else the CPU
    if (argc > 1) device = std::string(argv[1]) == "cpu" ? GRILLY_DEVICE_CPU : std::atoi(argv[1]);
    const grilly::Context context(device);
    std::cout << context.device_info().name << '\n';

    Array x({4, 1, 16, 16});
    for (float &value : x.data) value = static_cast<float>(std::rand() % 2001 - 1000) / 1000;
    Conv2d blur(context, Conv2dOptions(1, 1, 3).padding(1).bias(false));
    blur.weight.data.assign(9, 1.0f / 9);
    const Array wanted = blur.forward(x);

    Conv2d first(context, Conv2dOptions(1, 8, 3).padding(1), 1), second(context, Conv2dOptions(8, 1, 1), 2);
    double loss = 0, loss_at_first = 0;
    for (int i = 0; i < 200; ++i) {
        Array hidden = first.forward(x);
        for (float &value : hidden.data) value = value > 0 ? value : 0;
        const Array y = second.forward(hidden);

        Array dy(y.shape);
        loss = 0;
        for (std::size_t j = 0; j < y.data.size(); ++j) {
            const float error = y.data[j] - wanted.data[j];
            dy.data[j] = 2 * error / static_cast<float>(y.data.size());
            loss += error * error / static_cast<double>(y.data.size());
        }
        Array dhidden = second.backward(dy);
        for (std::size_t j = 0; j < hidden.data.size(); ++j) dhidden.data[j] *= hidden.data[j] > 0;
        first.backward(dhidden);
        step(first, 0.3f);
        step(second, 0.3f);
        if (i == 0) loss_at_first = loss;
    }
    std::cout << "loss " << loss_at_first << ", after 200 steps " << loss << '\n';
    return loss < loss_at_first / 10 ? 0 : 1;
} catch (const grilly::Error &error) {
    std::cerr << grilly_status_string(error.status()) << ": " << error.what() << '\n';
    return 1;
}
