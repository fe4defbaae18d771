// Layers that own their parameters, in the manner of libtorch. See grilly.hpp for errors and threads.
#ifndef GRILLY_NN_HPP
#define GRILLY_NN_HPP

#include "conv2d.hpp"

#include <type_traits>

namespace grilly {
namespace nn {

/// One number for every axis, or one for each: `3` or `{3, 5}`, (height, width).
template <std::size_t D>
class Sizes {
public:
    Sizes(std::int64_t every) { values_.fill(every); }
    template <std::size_t E = D, typename = std::enable_if_t<E == 2>>
    Sizes(std::int64_t height, std::int64_t width) : values_{height, width} {}

    /// As (height, width) of a two-dimensional convolution, `missing` standing for an axis that is not there.
    void spread(std::int64_t (&pair)[2], std::int64_t missing) const {
        pair[0] = missing;
        std::copy(values_.begin(), values_.end(), pair + (2 - D));
    }

private:
    std::array<std::int64_t, D> values_;
};

/// `Conv2dOptions(3, 16, 3).stride(2).padding({1, 2}).bias(false)`; what is legal is checked when the layer is made.
template <std::size_t D, bool Transposed = false>
class ConvOptions {
public:
    ConvOptions(std::int64_t in_channels, std::int64_t out_channels, Sizes<D> kernel_size) {
        grilly_conv2d_desc_init(&desc_, sizeof desc_);
        desc_.in_channels = in_channels;
        desc_.out_channels = out_channels;
        desc_.transposed = Transposed;
        kernel_size.spread(desc_.kernel, 1);
    }

    /// Step between output elements (transposed: between those of one input element and the next); 1 at first.
    ConvOptions &stride(Sizes<D> stride) {
        stride.spread(desc_.stride, 1);
        return *this;
    }
    /// Elements on both sides of each axis (transposed: so many fewer of the output); 0 at first.
    ConvOptions &padding(Sizes<D> both) { return padding_begin_end(both, both); }
    /// Elements before and after each axis, as 'same' needs them for even kernels.
    ConvOptions &padding_begin_end(Sizes<D> begin, Sizes<D> end) {
        begin.spread(desc_.padding_begin, 0);
        end.spread(desc_.padding_end, 0);
        return *this;
    }
    /// What those elements are, a `GRILLY_PADDING_*`; zeros at first, and always for a transposed convolution.
    ConvOptions &padding_mode(std::int32_t mode) {
        desc_.padding_mode = mode;
        return *this;
    }
    /// Elements after each axis of the output, less than the stride or the dilation; 0 at first.
    ConvOptions &output_padding(Sizes<D> output_padding) {
        static_assert(Transposed, "only a transposed convolution has output padding");
        output_padding.spread(desc_.output_padding, 0);
        return *this;
    }
    /// Distance between kernel elements; 1 at first.
    ConvOptions &dilation(Sizes<D> dilation) {
        dilation.spread(desc_.dilation, 1);
        return *this;
    }
    /// Independent blocks of channels; 1 at first.
    ConvOptions &groups(std::int64_t groups) {
        desc_.groups = groups;
        return *this;
    }
    /// A `GRILLY_PRECISION_*`.
    ConvOptions &precision(std::int32_t precision) {
        desc_.precision = precision;
        return *this;
    }
    /// Whether the layer has a bias; true at first.
    ConvOptions &bias(bool bias) {
        bias_ = bias;
        return *this;
    }

    const grilly_conv2d_desc &desc() const noexcept { return desc_; }
    bool has_bias() const noexcept { return bias_; }

    /// For grilly::Conv2d, the operation without parameters.
    operator const grilly_conv2d_desc &() const noexcept { return desc_; }

private:
    grilly_conv2d_desc desc_;
    bool bias_ = true;
};

/// One of a layer's parameters, by the name that it has in PyTorch's state_dict.
struct NamedParameter {
    const char *name;
    Array &value;
    /// Without elements until the first `backward`.
    Array &grad;
};

/// A convolution with its parameters: Conv2d for `[N, C, H, W]` or one image `[C, H, W]`, Conv1d for `[N, C, L]` or
/// one sequence `[C, L]`. N may be 0. The output has the input's rank. ConvTranspose2d and ConvTranspose1d are their
/// transposes.
template <std::size_t D, bool Transposed = false>
class Conv {
public:
    using Options = ConvOptions<D, Transposed>;

    /// `[out_channels, in_channels / groups, kernel...]` (transposed: `[in_channels, out_channels / groups, ...]`), and
    /// `[out_channels]` or empty. Write them as you like.
    Array weight, bias;
    /// Sums of what `backward` found; without elements until then.
    Array weight_grad, bias_grad;
    /// Whether `forward` keeps its input for `backward`.
    bool training = true;

    /// Parameters are initialised as PyTorch does by default; the same seed gives the same values everywhere.
    static Result<Conv> create(const Context &context, const Options &options, std::uint64_t seed = 0) {
        auto op = grilly::Conv2d::create(context, options);
        Conv conv(std::move(*op));
        if (!op) return Result<Conv>(op.status(), std::move(conv));
        const grilly_conv2d_desc &desc = options.desc();
        const std::int64_t outer = Transposed ? desc.in_channels : desc.out_channels;
        const std::int64_t inner = Transposed ? desc.out_channels : desc.in_channels;
        conv.weight = Array(narrow({outer, inner / desc.groups, desc.kernel[0], desc.kernel[1]}, BATCHED));
        if (options.has_bias()) conv.bias = Array({desc.out_channels});
        float *bias = options.has_bias() ? conv.bias.data.data() : nullptr;
        const grilly_status status = conv.op_.try_init_parameters(seed, conv.weight.data.data(), bias);
        return Result<Conv>(status, std::move(conv));
    }

    /// The output for `x`; in training, `x` is kept for `backward`: move it in to avoid a copy.
    Result<Array> try_forward(Array x) {
        if (!known_rank(x.shape)) return refuse(D == 2 ? "x: expected [N, C, H, W] or [C, H, W]"
                                                       : "x: expected [N, C, L] or [C, L]");
        auto shape = op_.try_output_shape(widen(x.shape));
        if (!shape) return Result<Array>(shape.status(), Array());
        Array y(narrow(*shape, x.shape.rank));
        const grilly_status status = try_forward(view(x), view(y));
        if (status == GRILLY_OK && training) input_ = std::move(x);
        return Result<Array>(status, std::move(y));
    }

    /// The gradient with respect to the input of the latest `forward` in training; adds to `weight_grad`, `bias_grad`.
    Result<Array> try_backward(const Array &dy) {
        if (input_.shape.rank == 0) return refuse("backward() needs a forward() in training before it");
        if (dy.shape.rank != input_.shape.rank) return refuse("dy: expected the rank of the input");
        Array dx(input_.shape);
        const grilly_status status = try_backward(view(input_), view(dy), view(dx));
        return Result<Array>(status, std::move(dx));
    }

    /// The same on views in host or device memory, of 4 axes (a sequence is `[N, C, 1, L]`); nothing is kept.
    grilly_status try_forward(const ConstTensor &x, const Tensor &y) const {
        Io io = parameters();
        io.x = x;
        io.y = y;
        return op_.try_forward(io);
    }
    /// `dx` may be absent.
    grilly_status try_backward(const ConstTensor &x, const ConstTensor &dy, const Tensor &dx) {
        if (weight_grad.data.empty()) weight_grad = Array(weight.shape);
        if (bias_grad.data.empty()) bias_grad = Array(bias.shape);
        Io io = parameters();
        io.x = x;
        io.dy = dy;
        io.dx = dx;
        io.dweight = view(weight_grad);
        if (has_bias()) io.dbias = bias_grad;
        io.accumulate = true;
        return op_.try_backward(io);
    }

    /// Packs the weight for the device once, instead of at each call. Later changes of `weight` show only after
    /// another `pack()` or `unpack()`.
    grilly_status try_pack() {
        auto packed = op_.try_pack(view(weight));
        if (packed) packed_ = std::move(*packed);
        return packed.status();
    }
    void unpack() { packed_ = Weights(nullptr); }

    /// Sets the sums of gradients to 0.
    void zero_grad() {
        std::fill(weight_grad.data.begin(), weight_grad.data.end(), 0.0f);
        std::fill(bias_grad.data.begin(), bias_grad.data.end(), 0.0f);
    }

    bool has_bias() const noexcept { return bias.shape.rank != 0; }

    /// `weight`, and `bias` if there is one; valid as long as the layer stays where it is.
    std::vector<NamedParameter> named_parameters() {
        std::vector<NamedParameter> parameters{{"weight", weight, weight_grad}};
        if (has_bias()) parameters.push_back({"bias", bias, bias_grad});
        return parameters;
    }

    /// The operation without the parameters.
    const grilly::Conv2d &op() const noexcept { return op_; }

#if defined(__cpp_exceptions)
    Conv(const Context &context, const Options &options, std::uint64_t seed = 0)
        : Conv(create(context, options, seed).value()) {}
    Array forward(Array x) { return try_forward(std::move(x)).value(); }
    Array operator()(Array x) { return forward(std::move(x)); }
    Array backward(const Array &dy) { return try_backward(dy).value(); }
    void forward(const ConstTensor &x, const Tensor &y) const { check(try_forward(x, y)); }
    void backward(const ConstTensor &x, const ConstTensor &dy, const Tensor &dx) { check(try_backward(x, dy, dx)); }
    void pack() { check(try_pack()); }
#endif

private:
    static constexpr std::int32_t BATCHED = D + 2;
    static constexpr std::int32_t UNBATCHED = D + 1;

    grilly::Conv2d op_;
    Weights packed_{nullptr};
    Array input_;

    explicit Conv(grilly::Conv2d op) : op_(std::move(op)) {}

    static Result<Array> refuse(const char *message) {
        return Result<Array>(GRILLY_ERROR_INVALID_ARGUMENT, Array(), message);
    }

    static bool known_rank(const Shape &shape) { return shape.rank == BATCHED || shape.rank == UNBATCHED; }

    /// The axes that the layer's shape leaves out of the operation's 4: the batch, the height, or both.
    static bool left_out(std::size_t axis, std::int32_t rank) {
        return (axis == 0 && rank == UNBATCHED) || (axis == 2 && D == 1);
    }

    /// A layer's shape as the operation's 4 sizes.
    static Shape widen(const Shape &shape) {
        Shape wide{1, 1, 1, 1};
        for (std::size_t axis = 0, from = 0; axis < 4; ++axis) {
            if (!left_out(axis, shape.rank)) wide.sizes[axis] = shape[from++];
        }
        return wide;
    }

    /// The operation's 4 sizes as a layer's shape of the given rank.
    static Shape narrow(const Shape &wide, std::int32_t rank) {
        Shape shape;
        for (std::size_t axis = 0; axis < 4; ++axis) {
            if (!left_out(axis, rank)) shape.sizes[static_cast<std::size_t>(shape.rank++)] = wide[axis];
        }
        return shape;
    }

    static ConstTensor view(const Array &array) { return {array.data, widen(array.shape)}; }
    static Tensor view(Array &array) { return {array.data, widen(array.shape)}; }

    Io parameters() const {
        Io io;
        if (packed_) io.prepared = &packed_;
        else io.weight = view(weight);
        if (has_bias()) io.bias = bias;
        return io;
    }
};

using Conv2dOptions = ConvOptions<2>;
using Conv1dOptions = ConvOptions<1>;
using ConvTranspose2dOptions = ConvOptions<2, true>;
using ConvTranspose1dOptions = ConvOptions<1, true>;
using Conv2d = Conv<2>;
using Conv1d = Conv<1>;
using ConvTranspose2d = Conv<2, true>;
using ConvTranspose1d = Conv<1, true>;

}  // namespace nn
}  // namespace grilly

#endif
