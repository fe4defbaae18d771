// The same layers in a program without exceptions and run-time type information: everything by status.
#include <grilly.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "build this with -fno-exceptions -fno-rtti"
#endif

static void require(bool held, const char *what, const char *message = "") {
    if (held) return;
    std::fprintf(stderr, "FAILED: %s (%s)\n", what, message);
    std::exit(1);
}

int main(int argc, char **argv) {
    require(argc == 2, "usage: no_exceptions cpu|INDEX");
    auto context = grilly::Context::create(std::strcmp(argv[1], "cpu") == 0 ? GRILLY_DEVICE_CPU : std::atoi(argv[1]));
    require(bool(context), "no context", context.message());

    using grilly::nn::Conv2d;
    using grilly::nn::Conv2dOptions;
    const auto wrong = Conv2d::create(*context, Conv2dOptions(3, 8, 3).groups(2));
    require(wrong.status() == GRILLY_ERROR_INVALID_ARGUMENT, "groups that do not divide were accepted");
    require(std::strstr(wrong.message(), "groups") != nullptr, "the message does not name groups", wrong.message());

    auto made = Conv2d::create(*context, Conv2dOptions(3, 8, 3).padding(1), 1);
    require(bool(made), "no layer", made.message());
    Conv2d conv = *std::move(made);
    const auto early = conv.try_backward(grilly::Array({2, 8, 6, 6}));
    require(early.status() == GRILLY_ERROR_INVALID_ARGUMENT && early.message()[0] != '\0', "backward before forward");

    auto y = conv.try_forward(grilly::Array({2, 3, 6, 6}));
    require(bool(y), "forward", y.message());
    // Of zeros, only the bias is left.
    for (std::size_t i = 0; i < y->data.size(); ++i) require(y->data[i] == conv.bias.data[i / 36 % 8], "y of zeros");
    const auto dx = conv.try_backward(*y);
    require(bool(dx) && dx->shape == (grilly::Shape{2, 3, 6, 6}), "backward", dx.message());

    auto buffer = grilly::Buffer::create(*context, 16);
    require(bool(buffer) && *buffer->try_size() == 16, "buffer", buffer.message());
    const float values[4] = {1, 2, 3, 4};
    float back[4] = {};
    require(buffer->try_write(values, 4) == GRILLY_OK && buffer->try_read(back, 4) == GRILLY_OK, "write and read");
    require(std::memcmp(values, back, sizeof back) == 0, "a buffer's contents differ");
    require(buffer->try_write(values, 4, 4) == GRILLY_ERROR_INVALID_ARGUMENT, "a write beyond the end");

    using grilly::DeviceTensor;
    require(DeviceTensor::create(*context, grilly::Shape{2, -1}).message()[0] != '\0', "a negative size was accepted");
    auto on_device = conv.try_to_device(*context);
    require(bool(on_device), "a layer on the device", on_device.message());
    auto zeros = DeviceTensor::create(*context, grilly::Shape{2, 3, 6, 6});
    require(bool(zeros), "zeros", zeros.message());
    auto result = on_device->try_forward(*std::move(zeros));
    require(bool(result), "forward on the device", result.message());
    require(result->try_to_host()->data == y->data, "a layer on the device differs");
    const auto gradient = on_device->try_backward(*result);
    require(bool(gradient) && gradient->shape() == dx->shape, "backward on the device", gradient.message());
    require(gradient->try_to_host()->data == dx->data, "a gradient on the device differs");
    require(on_device->weight.try_add_(on_device->weight_grad, -0.5f) == GRILLY_OK, "an update on the device");
    require(on_device->try_zero_grad() == GRILLY_OK, "zero_grad");
    const auto twice = grilly::try_add(*result, *result);
    require(bool(twice) && twice->try_to_host()->data[0] == 2 * y->data[0], "try_add", twice.message());
    const auto refused = grilly::try_add(*result, *gradient);
    require(refused.status() == GRILLY_ERROR_INVALID_ARGUMENT && std::strstr(refused.message(), "broadcast") != nullptr,
            "shapes that do not broadcast were accepted", refused.message());
    auto row = std::move(*result).try_reshape({2 * 8 * 36});
    require(bool(row), "try_reshape", row.message());
    require(row->try_zero_() == GRILLY_OK && row->try_to_host()->data[0] == 0, "try_zero_");

    const auto plain = grilly::Conv2d::create(*context, Conv2dOptions(3, 3, 1));
    const auto no_weight = DeviceTensor::create(*context, grilly::Shape{3, 3, 1, 1});
    auto target = gradient->try_copy();
    require(bool(plain) && bool(no_weight) && bool(target), "what a submitted call needs");
    grilly::Io io;
    io.x = *gradient;
    io.weight = *no_weight;
    require(plain->try_submit_forward(io).status() == GRILLY_ERROR_INVALID_ARGUMENT, "a call without y was taken");
    io.y = *target;
    const auto ticket = plain->try_submit_forward(io);
    require(bool(ticket), "try_submit_forward", ticket.message());
    require(ticket->try_wait() == GRILLY_OK && ticket->try_wait_for(std::chrono::seconds(0)) == GRILLY_OK, "try_wait");
    const auto zeros_again = target->try_to_host();
    for (const float value : zeros_again->data) require(value == 0, "y of a weight of zeros");

    const auto devices = grilly::try_devices();
    require(bool(devices) && !devices->empty(), "no devices", devices.message());
    std::printf("ok without exceptions\n");
    return 0;
}
