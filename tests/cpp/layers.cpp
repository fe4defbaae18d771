// nn::Conv2d, nn::Conv1d and their transposes against float64, on cases of the table that all languages share; and that
// table's wrong cases.
#include "reference.hpp"
#include "test.hpp"

#include <cstdlib>
#include <string>

namespace {

template <bool Transposed>
grilly::nn::ConvOptions<2, Transposed> options(const Case &t, grilly::nn::Conv<2, Transposed> *) {
    grilly::nn::ConvOptions<2, Transposed> options(t.in_channels, t.k, {t.kernel[0], t.kernel[1]});
    if constexpr (Transposed) options.output_padding({t.output_padding[0], t.output_padding[1]});
    else options.padding_mode(t.padding_mode);
    return options.stride({t.stride[0], t.stride[1]})
        .padding_begin_end({t.padding[0][0], t.padding[1][0]}, {t.padding[0][1], t.padding[1][1]})
        .dilation({t.dilation[0], t.dilation[1]})
        .groups(t.groups)
        .bias(t.bias);
}
template <bool Transposed>
grilly::nn::ConvOptions<1, Transposed> options(const Case &t, grilly::nn::Conv<1, Transposed> *) {
    grilly::nn::ConvOptions<1, Transposed> options(t.in_channels, t.k, t.kernel[1]);
    if constexpr (Transposed) options.output_padding(t.output_padding[1]);
    else options.padding_mode(t.padding_mode);
    return options.stride(t.stride[1])
        .padding_begin_end(t.padding[1][0], t.padding[1][1])
        .dilation(t.dilation[1])
        .groups(t.groups)
        .bias(t.bias);
}
template <bool Transposed>
grilly::Shape input_shape(const Case &t, grilly::nn::Conv<2, Transposed> *) { return {t.n, t.c, t.h, t.w}; }
template <bool Transposed>
grilly::Shape input_shape(const Case &t, grilly::nn::Conv<1, Transposed> *) { return {t.n, t.c, t.w}; }

/// The one-dimensional convolution along a case's width.
Case along_width(Case t) {
    t.h = t.kernel[0] = t.stride[0] = t.dilation[0] = 1;
    t.padding[0][0] = t.padding[0][1] = t.output_padding[0] = 0;
    return t;
}

template <class Layer>
void check_layer(const grilly::Context &context, const Case &t, std::uint64_t seed) {
    const auto same = [&](const char *what, const std::string &difference) {
        CHECK(difference.empty(), "%s, height %d: %s %s", t.name.c_str(), int(t.h), what, difference.c_str());
    };
    Layer *const kind = nullptr;
    Random random{seed};
    Layer layer(context, options(t, kind), seed);
    const grilly::Array x = random.array(input_shape(t, kind));
    const grilly::Array y = layer.forward(x);
    const grilly::Array dy = random.array(y.shape);
    const auto rank = static_cast<std::size_t>(y.shape.rank);
    const Reference want(t, rank == 4 ? y.shape[2] : 1, y.shape[rank - 1], x.data, layer.weight.data, layer.bias.data,
                         dy.data);
    same("y", want.y.differs(y.data));
    const grilly::Array dx = layer.backward(dy);
    CHECK(dx.shape == x.shape, "%s: dx has another shape than x", t.name.c_str());
    same("dx", want.dx.differs(dx.data));
    same("dweight", want.dweight.differs(layer.weight_grad.data));
    same("dbias", want.dbias.differs(layer.bias_grad.data));

    layer.backward(dy);
    same("twice dweight", want.dweight.differs(layer.weight_grad.data, 2));
    same("twice dbias", want.dbias.differs(layer.bias_grad.data, 2));
    layer.zero_grad();
    for (float value : layer.weight_grad.data) CHECK(value == 0, "%s: zero_grad left %g", t.name.c_str(), value);

    layer.pack();
    CHECK(layer.forward(x).data == y.data, "%s: y from packed weights differs", t.name.c_str());
}

void check_wrong(const grilly::Context &context, const Case &t) {
    grilly_status status = GRILLY_OK;
    std::string message;
    try {
        grilly_conv2d_desc desc = options(t, static_cast<grilly::nn::Conv2d *>(nullptr));
        desc.transposed = t.transposed;
        std::copy_n(t.output_padding, 2, desc.output_padding);
        const grilly::Conv2d op(context, desc);
        op.output_shape({t.n, t.c, t.h, t.w});
    } catch (const grilly::Error &error) {
        status = error.status();
        message = error.what();
    }
    CHECK("GRILLY_ERROR_" + t.status == grilly_status_string(status), "%s: got %s, want %s", t.name.c_str(),
          grilly_status_string(status), t.status.c_str());
    CHECK(message.find(t.message) != std::string::npos, "%s: '%s' does not say '%s'", t.name.c_str(), message.c_str(),
          t.message.c_str());
}

template <class Layer>
void check_names(Layer layer, std::size_t count) {
    const char *const names[] = {"weight", "bias"};
    layer.training = false;
    const grilly::Array x(grilly::Shape{1, 2, 5, 5}, std::vector<float>(50, 1.0f));
    std::size_t seen = 0;
    for (const auto &parameter : layer.named_parameters()) {
        CHECK(seen < count && std::strcmp(parameter.name, names[seen]) == 0, "parameter %zu is %s", seen, parameter.name);
        std::fill(parameter.value.data.begin(), parameter.value.data.end(), 0.5f);
        ++seen;
    }
    CHECK(seen == count, "%zu parameters", seen);
    // The first output of either layer meets one kernel element in two channels: 0.5 each, and 0.5 of the bias.
    const float want = count == 2 ? 1.5f : 1.0f;
    CHECK(layer.forward(x).data[0] == want, "loaded parameters gave %g", layer.forward(x).data[0]);
}

void check_state(const grilly::Context &context) {
    using namespace grilly::nn;
    check_names(Conv2d(context, Conv2dOptions(2, 4, 1)), 2);
    check_names(Conv2d(context, Conv2dOptions(2, 4, 1).bias(false)), 1);
    check_names(ConvTranspose2d(context, ConvTranspose2dOptions(2, 4, 3)), 2);
    const ConvTranspose2d layer(context, ConvTranspose2dOptions(6, 4, {3, 2}).groups(2));
    CHECK(layer.weight.shape == (grilly::Shape{6, 2, 3, 2}), "the weight of a transposed layer has another shape");
}

void check_usage(const grilly::Context &context) {
    Random random{99};
    grilly::nn::Conv2d conv(context, grilly::nn::Conv2dOptions(3, 8, 3).padding(1).stride(2));
    const grilly::Array dy = random.array({2, 8, 4, 4});
    check_throws("backward first", "forward()", [&] { conv.backward(dy); });
    check_throws("rank 2", "[N, C, H, W]", [&] { conv.forward(grilly::Array({8, 8})); });
    check_throws("rank 5", "[N, C, H, W]", [&] { conv.forward(grilly::Array({1, 2, 3, 8, 8})); });
    check_throws("channels", "channels", [&] { conv.forward(grilly::Array({1, 4, 8, 8})); });

    grilly::Array x = random.array({2, 3, 8, 8});
    const grilly::Array y = conv.forward(x);
    check_throws("dy of another shape", "dy", [&] { conv.backward(grilly::Array({2, 8, 4, 5})); });
    check_throws("dy of another rank", "rank", [&] { conv.backward(grilly::Array({8, 4, 4})); });

    // One image without its batch gives the same as with it.
    const std::vector<float> image(x.data.begin(), x.data.begin() + 3 * 8 * 8);
    const grilly::Array one = conv(grilly::Array({3, 8, 8}, image));
    CHECK(one.shape == (grilly::Shape{8, 4, 4}), "one image gave rank %d", one.shape.rank);
    CHECK(std::equal(one.data.begin(), one.data.end(), y.data.begin()), "one image differs");
    CHECK(conv.backward(one).shape == (grilly::Shape{3, 8, 8}), "one image's gradient has another shape");

    // A gradient that was moved out begins anew.
    const grilly::Array taken = std::move(conv.weight_grad), taken_bias = std::move(conv.bias_grad);
    conv.zero_grad();
    conv.forward(x);
    conv.backward(y);
    const grilly::Array once = conv.weight_grad;
    CHECK(once.data.size() == taken.data.size(), "a gradient did not begin anew");
    CHECK(conv.bias_grad.data.size() == taken_bias.data.size(), "a bias's gradient did not begin anew");
    conv.zero_grad();
    conv.backward(y);
    CHECK(conv.weight_grad.data == once.data, "a gradient that began anew is another");

    // Sizes of another rank are not sizes of images.
    for (const grilly::Shape &shape : {grilly::Shape{3, 8, 8}, grilly::Shape{1, 3, 8, 8, 2}, grilly::Shape()}) {
        check_throws("output_shape", "[N, C, H, W]", [&] { (void)conv.op().output_shape(shape); });
        check_throws("memory", "[N, C, H, W]", [&] { (void)conv.op().memory(shape); });
        check_throws("plan", "[N, C, H, W]", [&] { (void)conv.op().plan(GRILLY_PASS_FORWARD, shape); });
    }

    // Out of training nothing is kept: the latest input in training counts.
    conv.forward(x);
    conv.training = false;
    conv.forward(grilly::Array({5, 3, 8, 8}));
    CHECK(conv.backward(dy).shape == x.shape, "an input outside training was kept");

    // Views: device memory in and out, a mirrored image from the host.
    const grilly::Buffer buffer(context, 4096 + y.data.size() * sizeof(float));
    buffer.write(x.data);
    conv.forward(grilly::ConstTensor(buffer, x.shape), grilly::Tensor(buffer, y.shape, 4096));
    grilly::Array copy(y.shape);
    buffer.read(copy.data, 4096);
    CHECK(copy.data == y.data, "y through device memory differs");
    grilly::Array mirrored(x.shape);
    for (std::size_t i = 0; i < x.data.size(); ++i) mirrored.data[i / 8 * 8 + 7 - i % 8] = x.data[i];
    grilly::ConstTensor view(mirrored);
    view.set_strides({3 * 64, 64, 8, -1}, 7);
    conv.forward(view, copy);
    CHECK(copy.data == y.data, "y of a mirrored view differs");

    // Owners move, and end what they own.
    grilly::nn::Conv2d moved = std::move(conv);
    moved.unpack();
    CHECK(moved.forward(x).data == y.data, "a moved layer differs");
    const auto before = context.stats().blocks_in_use;
    {
        grilly::Buffer first(context, 64), second(context, 64);
        first = std::move(second);
    }
    CHECK(context.stats().blocks_in_use == before, "buffers are left over");
    try {
        grilly::Context none(1 << 30);
        CHECK(false, "opened a device that does not exist");
    } catch (const grilly::Error &error) {
        CHECK(error.status() == GRILLY_ERROR_NO_DEVICE, "got %s", error.what());
    }
    CHECK(!grilly::devices().empty(), "no devices");
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) return usage(argv[0], "cpu|INDEX CASES.json");
    const grilly::Context context(device_argument(argv[1]));
    // The library's own tests take the whole table.
    const char *all = std::getenv("GRILLY_TEST_ALL");
    const std::size_t step = all != nullptr && std::string(all) == "1" ? 1 : 3;
    std::size_t at = 0, right = 0, wrong = 0;
    for (const Case &t : read_cases(argv[2])) {
        try {
            if (!t.status.empty()) {
                ++wrong;
                check_wrong(context, t);
                continue;
            }
            if (at++ % step != 0) continue;
            ++right;
            if (t.transposed) {
                check_layer<grilly::nn::ConvTranspose2d>(context, t, right);
                check_layer<grilly::nn::ConvTranspose1d>(context, along_width(t), right);
            } else {
                check_layer<grilly::nn::Conv2d>(context, t, right);
                check_layer<grilly::nn::Conv1d>(context, along_width(t), right);
            }
        } catch (const grilly::Error &error) {
            CHECK(false, "%s: %s: %s", t.name.c_str(), grilly_status_string(error.status()), error.what());
        }
    }
    group("Conv2d, Conv1d and their transposes against float64", right);
    group("wrong convolutions are refused by name", wrong);
    check_state(context);
    group("parameters by name", 4);
    check_usage(context);
    group("layers in use", 1);
    return failures != 0;
}
