// Ticket: calls that are submitted give what calls that wait give, and can be waited for as often and as briefly as one
// likes.
#include "reference.hpp"
#include "test.hpp"

#include <chrono>
#include <limits>
#include <type_traits>
#include <vector>

namespace {

using grilly::Context;
using grilly::Conv2d;
using grilly::DeviceTensor;
using grilly::Io;
using grilly::Ticket;
using grilly::nn::Conv2dOptions;
using std::chrono::nanoseconds;

static_assert(!std::is_copy_constructible<Ticket>::value && std::is_nothrow_move_constructible<Ticket>::value,
              "a Ticket moves and is not copied");

constexpr std::size_t CALLS = 6;

/// A layer whose output has its input's shape, and its tensors.
struct Layer {
    explicit Layer(const Context &context)
        : conv(context, Conv2dOptions(4, 4, 3).padding(1)), weight(context, Random{2}.array({4, 4, 3, 3})),
          bias(context, Random{3}.array({4})) {
        for (std::size_t i = 0; i <= CALLS; ++i) values.emplace_back(context, Random{1}.array({2, 4, 9, 7}));
    }
    Io forward(std::size_t call) {
        Io io;
        io.x = values[call];
        io.weight = weight;
        io.bias = bias;
        io.y = values[call + 1];
        return io;
    }

    Conv2d conv;
    DeviceTensor weight, bias;
    std::vector<DeviceTensor> values;  // of a chain of calls: each is the next one's input
};

void check_chain(const Context &context) {
    Layer waiting(context), submitted(context);
    std::vector<Ticket> tickets;
    for (std::size_t i = 0; i < CALLS; ++i) waiting.conv.forward(waiting.forward(i));
    for (std::size_t i = 0; i < CALLS; ++i) tickets.push_back(submitted.conv.submit_forward(submitted.forward(i)));
    tickets.back().wait();
    for (const Ticket &ticket : tickets) {
        CHECK(ticket.done() && ticket.wait_for(nanoseconds(-1)) && ticket.try_wait() == GRILLY_OK,
              "an earlier call is not done");
    }
    CHECK(waiting.values[CALLS].to_host().data == submitted.values[CALLS].to_host().data, "a chain differs");
    group("a chain under way gives what waiting calls give", CALLS);
}

void check_gradients(const Context &context) {
    Layer layer(context);
    const DeviceTensor dy(context, Random{4}.array({2, 4, 9, 7}));
    std::vector<float> results[2];
    for (const bool submits : {false, true}) {
        DeviceTensor dx = dy.like({2, 4, 9, 7}), dweight = dy.like({4, 4, 3, 3}), dbias = dy.like({4});
        Io io;
        io.x = layer.values[0];
        io.weight = layer.weight;
        io.dy = dy;
        io.dx = dx;
        io.dweight = dweight;
        io.dbias = dbias;
        if (submits) {
            layer.conv.submit_backward(io).wait();
        } else {
            layer.conv.backward(io);
        }
        for (const DeviceTensor *gradient : {&dx, &dweight, &dbias}) {
            const std::vector<float> values = gradient->to_host().data;
            results[submits].insert(results[submits].end(), values.begin(), values.end());
        }
    }
    CHECK(results[0] == results[1], "gradients differ");
    group("gradients can be submitted", 1);
}

void check_lives(int device) {
    Context context(device);
    Ticket ticket(nullptr);
    {
        Layer layer(context);
        ticket = layer.conv.submit_forward(layer.forward(0));
        CHECK(ticket && ticket.wait_for(std::chrono::minutes(1)), "a short call takes more than a minute");
        ticket = layer.conv.submit_forward(layer.forward(1));
    }
    context = Context(nullptr);
    ticket.wait();
    CHECK(ticket.done(), "a call that was waited for is not done");
    group("a ticket outlives layer, tensors and context", 1);
}

void check_errors(const Context &context) {
    Layer layer(context);
    Io io = layer.forward(0);
    io.y = layer.values[0];
    check_throws("y is x", "overlap", [&] { (void)layer.conv.submit_forward(io); });
    io.y = grilly::Tensor();
    CHECK(layer.conv.try_submit_forward(io).status() == GRILLY_ERROR_INVALID_ARGUMENT, "a call without y was taken");
    CHECK(layer.conv.try_submit_backward(io).status() == GRILLY_ERROR_INVALID_ARGUMENT, "a call without dy was taken");
    CHECK(Ticket(nullptr).try_wait() == GRILLY_ERROR_INVALID_HANDLE, "an empty ticket was waited for");
    group("wrong calls give no ticket", 4);
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc != 2) {
        std::fputs("usage: tickets cpu|INDEX\n", stderr);
        return 2;
    }
    const int device = std::strcmp(argv[1], "cpu") == 0 ? GRILLY_DEVICE_CPU : std::atoi(argv[1]);
    const Context context(device);
    check_chain(context);
    check_gradients(context);
    check_lives(device);
    check_errors(context);
    return failures == 0 ? 0 : 1;
} catch (const grilly::Error &error) {
    std::fprintf(stderr, "FAILED: %s: %s\n", grilly_status_string(error.status()), error.what());
    return 1;
}
