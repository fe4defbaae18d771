// DeviceTensor: its memory, its element-wise operations, and layers on it, which give what layers on arrays give.
#include "reference.hpp"
#include "test.hpp"

#include <limits>
#include <type_traits>

namespace {

using grilly::Array;
using grilly::Context;
using grilly::DeviceTensor;
using grilly::Shape;

static_assert(!std::is_copy_constructible<DeviceTensor>::value &&
                  std::is_nothrow_move_constructible<DeviceTensor>::value,
              "a DeviceTensor moves and is not copied");
static_assert(!std::is_convertible<DeviceTensor, grilly::ConstTensor>::value &&
                  std::is_convertible<const DeviceTensor &, grilly::ConstTensor>::value,
              "what a view views outlives the call");

/// Integers in [-3, 3]: sums of their products are exact, in whatever order.
Array integers(const Shape &shape, std::uint64_t seed) {
    Random random{seed};
    Array made(shape);
    for (float &value : made.data) value = std::floor(random.next() * 3.5f + 0.5f);
    return made;
}

/// A tensor in memory that was not zero before.
DeviceTensor poisoned(const Context &context, const Shape &shape) {
    return std::move(DeviceTensor(context, shape).fill_(std::numeric_limits<float>::quiet_NaN()));
}

void check_memory(const Context &context) {
    const Array values = integers({2, 3, 4}, 1);
    const auto blocks = context.stats().blocks_in_use;
    {
        const DeviceTensor tensor(context, values);
        CHECK(tensor && tensor.shape() == values.shape, "a tensor has another shape than its array");
        CHECK(tensor.to_host().data == values.data && tensor.to_host().shape == values.shape, "values differ");
        CHECK(DeviceTensor(context, values.data, {24}).to_host().data == values.data, "values of a vector differ");
        const DeviceTensor part(context, values.data.data() + 4, 4, {4});
        CHECK(part.to_host().data[3] == values.data[7], "a part differs");
        (void)poisoned(context, {4, 6});
        for (float value : DeviceTensor(context, Shape{4, 6}).to_host().data) CHECK(value == 0, "zeros hold %g", value);

        DeviceTensor copy = tensor.copy();
        copy.fill_(9);
        CHECK(tensor.to_host().data == values.data, "a copy shares its memory");
        const grilly_buffer *const memory = copy.buffer().get();
        DeviceTensor moved = std::move(copy);
        CHECK(!copy && moved && moved.buffer().get() == memory, "a move left the memory behind");
        moved = tensor.like({5});
        CHECK(moved.shape() == Shape{5}, "a tensor like another has its own shape");

        const DeviceTensor none(context, Array(Shape{0, 3, 8, 8}));
        CHECK(none && none.to_host().data.empty() && grilly::relu(none).shape() == none.shape(), "no elements");
    }
    CHECK(context.stats().blocks_in_use == blocks, "memory is left over");
    CHECK(!DeviceTensor() && DeviceTensor().shape().rank == 0, "a default tensor holds something");
    group("tensors own their memory", 1);
}

void check_reshape(const Context &context) {
    const Array values = integers({2, 3, 4}, 2);
    DeviceTensor tensor(context, values);
    const grilly_buffer *const memory = tensor.buffer().get();
    const auto before = context.stats();
    tensor = std::move(tensor).reshape({4, 6});
    const auto after = context.stats();
    CHECK(tensor.shape() == (Shape{4, 6}) && tensor.buffer().get() == memory, "reshape took other memory");
    CHECK(after.submits == before.submits && after.download_bytes == before.download_bytes, "reshape moved values");
    CHECK(tensor.to_host().data == values.data, "reshape changed values");
    check_throws("reshape to 20", "as many elements", [&] { (void)std::move(tensor).reshape({4, 5}); });
    DeviceTensor elsewhere = std::move(tensor);
    check_throws("reshape of nothing", "owns no memory", [&] { (void)std::move(tensor).reshape({4, 6}); });
    tensor = std::move(elsewhere);
    check_throws("reshape to rank 5", "1 to 4 sizes", [&] { (void)std::move(tensor).reshape({4, 6, 1, 1, 1}); });
    CHECK(tensor && tensor.to_host().data == values.data, "a refused reshape lost the tensor");
    group("reshape keeps the memory", 1);
}

#if defined(__cpp_lib_span)
void check_spans(const Context &context) {
    const Array values = integers({2, 6}, 3);
    const DeviceTensor tensor(context, std::span<const float>(values.data), {2, 6});
    std::array<float, 6> row{};
    tensor.buffer().read(std::span<float>(row), 6 * sizeof(float));
    CHECK(std::equal(row.begin(), row.end(), values.data.begin() + 6), "a row read into a span differs");
    tensor.buffer().write(std::span<const float>(row));
    CHECK(std::equal(row.begin(), row.end(), tensor.to_host().data.begin()), "a row written from a span differs");
    group("spans of host memory", 1);
}
#endif

void check_elementwise(const Context &context) {
    const Array x = integers({2, 3, 4}, 4), y = integers({2, 3, 4}, 5), row = integers({4}, 6);
    const DeviceTensor a(context, x), b(context, y), r(context, row);
    const auto same = [&](const char *name, const DeviceTensor &got, float (*want)(float, float), const Array &second) {
        const Array host = got.to_host();
        CHECK(host.shape == x.shape, "%s has another shape", name);
        for (std::size_t i = 0; i < x.data.size(); ++i) {
            const float expected = want(x.data[i], second.data[i % second.data.size()]);
            CHECK(host.data[i] == expected, "%s: element %zu is %g, not %g", name, i, host.data[i], expected);
        }
    };
    using namespace grilly;
    same("add", add(a, b), [](float p, float q) { return p + q; }, y);
    same("add with alpha", add(a, b, -0.5f), [](float p, float q) { return p - 0.5f * q; }, y);
    same("add a number", add(a, 2), [](float p, float) { return p + 2; }, y);
    same("add a number with alpha", add(a, 2, 3), [](float p, float) { return p + 6; }, y);
    same("add a row", add(a, r), [](float p, float q) { return p + q; }, row);
    same("sub", sub(a, b, 2), [](float p, float q) { return p - 2 * q; }, y);
    same("mul", mul(a, b), [](float p, float q) { return p * q; }, y);
    same("mul by a number", mul(a, 0.5f), [](float p, float) { return p * 0.5f; }, y);
    same("div", grilly::div(a, 2), [](float p, float) { return p / 2; }, y);
    same("maximum", maximum(a, b), [](float p, float q) { return std::max(p, q); }, y);
    same("minimum", minimum(a, b), [](float p, float q) { return std::min(p, q); }, y);
    same("relu", relu(a), [](float p, float) { return std::max(p, 0.0f); }, y);
    same("relu_backward", relu_backward(a, b), [](float p, float q) { return q > 0 ? p : 0; }, y);

    const auto in_place = [&](const char *name, float (*want)(float, float), auto change) {
        DeviceTensor changed = a.copy();
        const grilly_buffer *const memory = changed.buffer().get();
        const DeviceTensor &returned = change(changed);
        CHECK(&returned == &changed && changed.buffer().get() == memory, "%s is not in place", name);
        same(name, changed, want, y);
    };
    in_place("add_", [](float p, float q) { return p - 0.5f * q; },
             [&](auto &t) -> auto & { return t.add_(b, -0.5f); });
    in_place("add_ itself", [](float p, float) { return p + p; }, [&](auto &t) -> auto & { return t.add_(t); });
    in_place("sub_", [](float p, float q) { return p - 2 * q; }, [&](auto &t) -> auto & { return t.sub_(b, 2); });
    in_place("mul_", [](float p, float q) { return p * q; }, [&](auto &t) -> auto & { return t.mul_(b); });
    in_place("div_", [](float p, float) { return p / 4; }, [&](auto &t) -> auto & { return t.div_(4); });
    in_place("relu_", [](float p, float) { return std::max(p, 0.0f); },
             [&](auto &t) -> auto & { return t.relu_(); });
    in_place("copy_", [](float, float q) { return q; }, [&](auto &t) -> auto & { return t.copy_(b); });
    in_place("fill_", [](float, float) { return 7.0f; }, [&](auto &t) -> auto & { return t.fill_(7); });
    in_place("zero_", [](float, float) { return 0.0f; }, [&](auto &t) -> auto & { return t.zero_(); });
    in_place("assign", [](float p, float q) { return q - 2 * p; },
             [&](auto &t) -> auto & { return t.assign(GRILLY_OP_SUBTRACT, b, t, 2); });
    DeviceTensor rows = poisoned(context, x.shape);
    rows.copy_(r);
    same("copy_ of a row", rows, [](float, float q) { return q; }, row);
    CHECK(a.to_host().data == x.data && b.to_host().data == y.data, "an operation changed its operands");
    group("element-wise operations", 24);
}

void check_refusals(const Context &context, const Context &other) {
    const DeviceTensor a(context, integers({2, 3}, 7)), foreign(other, integers({2, 3}, 7));
    const Array values = integers({2, 3}, 7);
    check_throws("no sizes", "1 to 4 sizes", [&] { DeviceTensor(context, Shape{}); });
    check_throws("five sizes", "1 to 4 sizes", [&] { DeviceTensor(context, Shape{1, 1, 1, 1, 1}); });
    check_throws("a negative size", "0 or more", [&] { DeviceTensor(context, values.data, {2, -3}); });
    check_throws("too many bytes", "2^63", [&] { DeviceTensor(context, Shape{1 << 30, 1 << 30, 1 << 30}); });
    check_throws("too few values", "as many elements", [&] { DeviceTensor(context, values.data, {2, 4}); });
    check_throws("another context", "another context", [&] { grilly::add(a, foreign); });
    check_throws("too few columns", "broadcast", [&] { grilly::add(a, DeviceTensor(context, Shape{2})); });
    check_throws("a larger operand", "broadcast", [&] { grilly::add(a, DeviceTensor(context, Shape{4, 2, 3})); });
    DeviceTensor gone = a.copy();
    const DeviceTensor taken = std::move(gone);
    check_throws("a moved tensor", "b has neither data nor buffer", [&] { grilly::add(a, gone); });
    check_throws("writing a moved tensor", "out has neither data nor buffer", [&] { gone.fill_(1); });
    CHECK(gone.try_to_host().status() == GRILLY_ERROR_INVALID_HANDLE, "a moved tensor has values");
    CHECK(DeviceTensor().try_fill_(1) == GRILLY_ERROR_INVALID_HANDLE, "a default tensor was written");
    CHECK(DeviceTensor().try_to_host()->data.empty(), "a default tensor has values");
    group("refusals", 1);
}

void same(const char *layer, const char *what, const DeviceTensor &got, const Array &want) {
    CHECK(got.shape() == want.shape, "%s: %s has another shape", layer, what);
    CHECK(got.to_host().data == want.data, "%s: %s differs from the array's", layer, what);
}

/// A layer on the device does bit by bit what it does on arrays.
template <class Layer>
void check_layer(const char *name, const Context &context, const typename Layer::Options &options, const Shape &shape) {
    Random random{8};
    Layer host(context, options, 8);
    auto device = host.to_device(context);
    const Array x = random.array(shape);
    const Array y = host.forward(x);
    const Array dy = random.array(y.shape);
    const Array dx = host.backward(dy);
    const DeviceTensor on_device(context, x), gradient(context, dy);
    same(name, "y", device.forward(on_device), y);
    same(name, "dx", device.backward(gradient), dx);
    same(name, "dweight", device.weight_grad, host.weight_grad);
    if (host.has_bias()) same(name, "dbias", device.bias_grad, host.bias_grad);
    CHECK(device.has_bias() == host.has_bias(), "%s: a bias came or went", name);

    host.backward(dy);
    device.backward(gradient);
    same(name, "dweight twice", device.weight_grad, host.weight_grad);
    device.zero_grad();
    for (float value : device.weight_grad.to_host().data) CHECK(value == 0, "%s: zero_grad left %g", name, value);

    same(name, "y of a moved input", device(on_device.copy()), y);
    same(name, "the kept input", device.input(), x);
    device.pack();
    same(name, "y from a packed weight", device(on_device), y);
}

void check_layers(const Context &context) {
    using namespace grilly::nn;
    check_layer<Conv2d>("Conv2d", context, Conv2dOptions(4, 6, {3, 2}).stride({2, 1}).padding(1).groups(2),
                        {2, 4, 9, 7});
    check_layer<Conv2d>("unbatched", context, Conv2dOptions(3, 5, 3).dilation(2).bias(false), {3, 9, 8});
    check_layer<Conv2d>("reflect", context, Conv2dOptions(3, 5, 3).padding(2).padding_mode(GRILLY_PADDING_REFLECT),
                        {2, 3, 6, 7});
    check_layer<Conv2d>("no images", context, Conv2dOptions(3, 5, 3), {0, 3, 6, 7});
    check_layer<Conv1d>("Conv1d", context, Conv1dOptions(4, 6, 3).stride(2).padding(1), {2, 4, 17});
    check_layer<Conv1d>("one sequence", context, Conv1dOptions(4, 6, 3), {4, 17});
    check_layer<ConvTranspose2d>("ConvTranspose2d", context,
                                 ConvTranspose2dOptions(6, 4, 3).stride(2).output_padding(1).groups(2), {2, 6, 5, 4});
    check_layer<ConvTranspose1d>("ConvTranspose1d", context, ConvTranspose1dOptions(6, 4, 3).stride(2), {2, 6, 8});
    group("layers on a device are bit by bit those on arrays", 8);
}

void check_integers(const Context &context) {
    using namespace grilly::nn;
    Case t{};
    t.n = 2, t.c = 4, t.h = 9, t.w = 7, t.k = 6, t.groups = 2;
    for (int axis = 0; axis < 2; ++axis) t.kernel[axis] = 3, t.stride[axis] = t.dilation[axis] = t.padding[axis][0] = 1;
    DeviceConv2d layer(context, Conv2dOptions(t.c, t.k, 3).padding(1).groups(2).precision(GRILLY_PRECISION_IEEE));
    const Array x = integers({t.n, t.c, t.h, t.w}, 10), dy = integers({t.n, t.k, t.h, t.w}, 11);
    const Array weight = integers(layer.weight.shape(), 12), bias = integers({t.k}, 13);
    layer.weight = DeviceTensor(context, weight);
    layer.bias = DeviceTensor(context, bias);
    const Reference want(t, t.h, t.w, x.data, weight.data, bias.data, dy.data);
    const auto equal = [](const char *what, const DeviceTensor &got, const Sums &sums) {
        const Array host = got.to_host();
        CHECK(std::equal(host.data.begin(), host.data.end(), sums.value.begin(), sums.value.end()), "%s is inexact",
              what);
    };
    equal("y", layer(DeviceTensor(context, x)), want.y);
    equal("dx", layer.backward(DeviceTensor(context, dy)), want.dx);
    equal("dweight", layer.weight_grad, want.dweight);
    equal("dbias", layer.bias_grad, want.dbias);
    group("small integers are exact", 1);
}

void check_layer_usage(const Context &context, const Context &other) {
    using namespace grilly::nn;
    DeviceConv2d layer(context, Conv2dOptions(3, 8, 3).padding(1));
    const DeviceTensor x(context, Random{14}.array({2, 3, 8, 8}));
    check_throws("backward first", "forward()", [&] { layer.backward(x); });
    check_throws("rank 2", "[N, C, H, W]", [&] { layer(DeviceTensor(context, Shape{8, 8})); });
    check_throws("a tensor that holds nothing", "[N, C, H, W]", [&] { layer(DeviceTensor()); });
    check_throws("another context", "another context", [&] { layer(DeviceTensor(other, Shape{2, 3, 8, 8})); });
    const DeviceTensor y = layer(x);
    check_throws("dy of another rank", "rank", [&] { layer.backward(DeviceTensor(context, Shape{8, 8, 8})); });
    DeviceTensor weight = std::move(layer.weight);
    check_throws("no weight", "weight", [&] { layer.backward(y); });
    layer.weight = std::move(weight);
    layer.backward(y);
    const DeviceTensor taken = std::move(layer.weight_grad);
    layer.zero_grad();
    layer.backward(y);
    CHECK(layer.weight_grad.to_host().data == taken.to_host().data, "a gradient that was moved out did not begin anew");
    layer.weight_grad = DeviceTensor();
    layer.bias_grad = DeviceTensor();

    layer.training = false;
    const DeviceTensor small(context, Shape{1, 3, 4, 4});
    layer(small);
    CHECK(layer.input().shape() == x.shape(), "an input outside training was kept");

    // Tensors as views beside arrays: results are overwritten, the parameters' gradients are added to.
    const Array array = x.to_host();
    DeviceTensor out = poisoned(context, y.shape()), dx = poisoned(context, x.shape());
    layer.forward(array, out);
    CHECK(out.to_host().data == y.to_host().data, "y of an array differs");
    const DeviceTensor dx_of_y = layer.backward(y), dweight = layer.weight_grad.copy();
    layer.backward(array, y, dx);
    CHECK(dx.to_host().data == dx_of_y.to_host().data, "dx was not overwritten");
    layer.backward(x, y, grilly::Tensor());
    const Array once = dweight.to_host(), thrice = layer.weight_grad.to_host();
    for (std::size_t i = 0; i < once.data.size(); ++i) {
        const float want = 3 * once.data[i];
        CHECK(std::fabs(thrice.data[i] - want) <= 1e-5f * std::fabs(want), "dweight was not added to");
    }

    // The context may move while its tensors live.
    Context first(std::move(*Context::create(context.device_info().index)));
    DeviceTensor tensor(first, Shape{2, 2});
    const Context second = std::move(first);
    CHECK(tensor.fill_(3).to_host().data[3] == 3, "a tensor lost its context");
    group("layers in use", 1);
}

void check_chain(const Context &context) {
    using namespace grilly::nn;
    std::vector<Conv2d> host;
    std::vector<DeviceConv2d> device;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        host.emplace_back(context, Conv2dOptions(8, 8, 3).padding(1), seed);
        device.push_back(host.back().to_device(context));
    }
    const Array x = Random{15}.array({2, 8, 12, 12}), dy = Random{16}.array({2, 8, 12, 12});
    Array y, dx;
    const auto step = [&] {
        DeviceTensor value(context, x);
        for (auto &layer : device) value = layer(std::move(value));
        DeviceTensor gradient(context, dy);
        for (auto layer = device.rbegin(); layer != device.rend(); ++layer) gradient = layer->backward(gradient);
        y = value.to_host();
        dx = gradient.to_host();
    };
    step();
    step();
    const auto before = context.stats();
    step();
    const auto after = context.stats();
    const std::size_t both = (x.data.size() + dy.data.size()) * sizeof(float);
    CHECK(after.upload_bytes - before.upload_bytes == both, "uploaded %llu bytes, x and dy have %zu",
          static_cast<unsigned long long>(after.upload_bytes - before.upload_bytes), both);
    CHECK(after.download_bytes - before.download_bytes == both, "downloaded %llu bytes, y and dx have %zu",
          static_cast<unsigned long long>(after.download_bytes - before.download_bytes), both);
    CHECK(after.allocations == before.allocations, "a warm step allocates");
    CHECK(after.pipelines == before.pipelines, "a warm step compiles");
    CHECK(after.blocks_in_use == before.blocks_in_use, "a step keeps memory");

    Array value = x, gradient = dy;
    for (auto &layer : host) value = layer(std::move(value));
    for (auto layer = host.rbegin(); layer != host.rend(); ++layer) gradient = layer->backward(gradient);
    CHECK(y.data == value.data && dx.data == gradient.data, "a chain on the device differs from one on arrays");
    group("a chain of 8 layers moves x and dy up, y and dx down", 8);
}

// The block's operations on arrays.
Array relu(Array x) {
    for (float &value : x.data) value = std::max(value, 0.0f);
    return x;
}
Array relu_backward(Array dy, const Array &y) {
    for (std::size_t i = 0; i < y.data.size(); ++i) dy.data[i] = y.data[i] > 0 ? dy.data[i] : 0;
    return dy;
}
Array add(Array a, const Array &b, float alpha = 1) {
    for (std::size_t i = 0; i < b.data.size(); ++i) a.data[i] += alpha * b.data[i];
    return a;
}

/// relu(conv2(relu(conv1(x))) + x), on arrays or on a device.
template <class T>
struct ResNetBlock {
    grilly::nn::Conv<2, false, T> conv1, conv2;

    T forward(T x) {
        T residual = conv2(relu(conv1(std::move(x))));
        return relu(add(residual, conv1.input()));
    }
    T backward(const T &dy, const T &y) {
        const T dsum = relu_backward(dy, y);
        return add(conv1.backward(relu_backward(conv2.backward(dsum), conv2.input())), dsum);
    }
    void step(float rate) {
        for (auto *conv : {&conv1, &conv2}) {
            for (auto &parameter : conv->named_parameters()) update(parameter.value, parameter.grad, rate);
            conv->zero_grad();
        }
    }
    static void update(Array &value, const Array &grad, float rate) { value = add(std::move(value), grad, -rate); }
    static void update(DeviceTensor &value, const DeviceTensor &grad, float rate) { value.add_(grad, -rate); }
};

void check_resnet_block(const Context &context) {
    using namespace grilly::nn;
    const auto options = Conv2dOptions(8, 8, 3).padding(1).precision(GRILLY_PRECISION_IEEE);
    ResNetBlock<Array> host{{context, options}, {context, options}};
    std::uint64_t seed = 20;
    // A step by a power of two is rounded once, also where a compiler contracts the host's into a fused multiply-add.
    for (auto *conv : {&host.conv1, &host.conv2})
        for (auto &parameter : conv->named_parameters()) parameter.value = integers(parameter.value.shape, ++seed);
    ResNetBlock<DeviceTensor> device{host.conv1.to_device(context), host.conv2.to_device(context)};
    const Array x = integers({2, 8, 6, 6}, 30), dy = integers({2, 8, 6, 6}, 31);
    for (int step = 0; step < 2; ++step) {
        const Array y = host.forward(x), dx = host.backward(dy, y);
        const DeviceTensor on_device = device.forward(DeviceTensor(context, x));
        same("block", "y", on_device, y);
        same("block", "dx", device.backward(DeviceTensor(context, dy), on_device), dx);
        same("block", "dweight", device.conv1.weight_grad, host.conv1.weight_grad);
        const auto before = context.stats();
        device.step(0x1p-8f);
        const auto after = context.stats();
        CHECK(after.upload_bytes == before.upload_bytes && after.download_bytes == before.download_bytes,
              "an update went through the host");
        host.step(0x1p-8f);
        same("block", "weight", device.conv1.weight, host.conv1.weight);
        same("block", "bias", device.conv2.bias, host.conv2.bias);
    }
    group("a ResNet block on tensors is the one on arrays", 2);
}

void check_state(const Context &context, const Context &other) {
    using namespace grilly::nn;
    const auto options = Conv2dOptions(3, 8, 3);
    DeviceConv2d saved(context, options, 1), loaded(context, options, 2);
    Conv2d on_host(context, options, 3);
    const DeviceTensor x(context, Random{17}.array({2, 3, 8, 8}));
    const Array y = saved(x).to_host();
    CHECK(loaded(x).to_host().data != y.data, "two seeds gave the same layer");

    std::vector<std::pair<std::string, Array>> state;
    for (const auto &parameter : saved.named_parameters())
        state.emplace_back(parameter.name, parameter.value.to_host());
    CHECK(state.size() == 2 && state[0].first == "weight" && state[1].first == "bias", "%zu parameters", state.size());
    std::size_t at = 0;
    for (auto &parameter : loaded.named_parameters()) parameter.value = DeviceTensor(context, state[at++].second);
    at = 0;
    for (auto &parameter : on_host.named_parameters()) parameter.value = state[at++].second;
    CHECK(loaded(x).to_host().data == y.data, "a loaded layer differs");
    CHECK(on_host(x.to_host()).data == y.data, "a loaded layer on arrays differs");
    DeviceConv2d elsewhere = on_host.to_device(other);
    CHECK(elsewhere(DeviceTensor(other, x.to_host())).to_host().data == y.data, "a layer on another context differs");
    for (auto &parameter : loaded.named_parameters()) parameter.value = DeviceTensor(context, Shape{4});
    check_throws("a parameter of another shape", "weight", [&] { loaded(x); });
    group("state passes between layers", 1);
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc != 2) return usage(argv[0], "cpu|INDEX");
    const Context context(device_argument(argv[1])), other(device_argument(argv[1]));
    check_memory(context);
    check_reshape(context);
#if defined(__cpp_lib_span)
    check_spans(context);
#endif
    check_elementwise(context);
    check_refusals(context, other);
    check_layers(context);
    check_integers(context);
    check_layer_usage(context, other);
    check_chain(context);
    check_resnet_block(context);
    check_state(context, other);
    return failures != 0;
} catch (const grilly::Error &error) {
    std::fprintf(stderr, "FAILED: %s: %s\n", grilly_status_string(error.status()), error.what());
    return 1;
}
