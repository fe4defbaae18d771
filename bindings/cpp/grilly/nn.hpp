// Layers that own their parameters, in the manner of libtorch. See grilly.hpp for errors and threads.
#ifndef GRILLY_NN_HPP
#define GRILLY_NN_HPP

#include "conv2d.hpp"
#include "device_tensor.hpp"

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

namespace detail {

// What a layer does with its tensors, in host memory and on a device.

/// Values as a tensor of the last argument's kind.
inline Result<Array> place(const Context &, Array values, const Array &) {
    return Result<Array>(GRILLY_OK, std::move(values));
}
inline Result<DeviceTensor> place(const Context &context, const Array &values, const DeviceTensor &) {
    return DeviceTensor::create(context, values);
}
/// Another beside `x`, whose values count as unspecified.
inline Result<Array> like(const Array &, const Shape &shape) { return Result<Array>(GRILLY_OK, Array(shape)); }
inline Result<DeviceTensor> like(const DeviceTensor &x, const Shape &shape) { return x.try_like(shape); }
inline Result<Array> copy(const Array &x) { return Result<Array>(GRILLY_OK, x); }
inline Result<DeviceTensor> copy(const DeviceTensor &x) { return x.try_copy(); }
inline grilly_status zero(Array &x) {
    std::fill(x.data.begin(), x.data.end(), 0.0f);
    return GRILLY_OK;
}
inline grilly_status zero(DeviceTensor &x) { return x ? x.try_zero_() : GRILLY_OK; }
/// Whether it holds nothing: it is a default one, or was moved from.
inline bool is_empty(const Array &x) { return x.data.empty() && (x.shape.rank == 0 || x.shape.elements() != 0); }
inline bool is_empty(const DeviceTensor &x) { return !x; }
inline const Shape &shape_of(const Array &x) { return x.shape; }
inline const Shape &shape_of(const DeviceTensor &x) { return x.shape(); }
inline ConstTensor view(const Array &x, const Shape &shape) { return {x.data, shape}; }
inline Tensor view(Array &x, const Shape &shape) { return {x.data, shape}; }
inline ConstTensor view(const DeviceTensor &x, const Shape &shape) { return {x.buffer(), shape}; }
inline Tensor view(DeviceTensor &x, const Shape &shape) { return {x.buffer(), shape}; }

}  // namespace detail

/// One of a layer's parameters, by the name that it has in PyTorch's state_dict.
template <class T = Array>
struct NamedParameter {
    const char *name;
    T &value;
    /// Holds nothing until the first `backward`.
    T &grad;
};

/// A convolution with its parameters: Conv2d for `[N, C, H, W]` or one image `[C, H, W]`, Conv1d for `[N, C, L]` or
/// one sequence `[C, L]`. N may be 0. The output has the input's rank. ConvTranspose2d and ConvTranspose1d are their
/// transposes.
///
/// Parameters, gradients, inputs and outputs are all T: Arrays in host memory, or, of the layers whose names begin with
/// Device, DeviceTensors in the layer's context. A chain of the latter transfers nothing by itself.
template <std::size_t D, bool Transposed = false, class T = Array>
class Conv {
public:
    using Options = ConvOptions<D, Transposed>;

    /// `[out_channels, in_channels / groups, kernel...]` (transposed: `[in_channels, out_channels / groups, ...]`), and
    /// `[out_channels]` or empty. Assign to them, or change them in place, as you like.
    T weight, bias;
    /// Sums of what `backward` found; without elements until then.
    T weight_grad, bias_grad;
    /// Whether `forward` keeps its input for `backward`.
    bool training = true;

    /// Parameters are initialised as PyTorch does by default; the same seed gives the same values everywhere.
    static Result<Conv> create(const Context &context, const Options &options, std::uint64_t seed = 0) {
        auto conv = without_parameters(context, options);
        if (!conv) return conv;
        const grilly_conv2d_desc &desc = options.desc();
        const std::int64_t outer = Transposed ? desc.in_channels : desc.out_channels;
        const std::int64_t inner = Transposed ? desc.out_channels : desc.in_channels;
        Array weight(narrow({outer, inner / desc.groups, desc.kernel[0], desc.kernel[1]}, BATCHED)), bias;
        if (options.has_bias()) bias = Array({desc.out_channels});
        float *const drawn_bias = options.has_bias() ? bias.data.data() : nullptr;
        const grilly_status status = conv->op_.try_init_parameters(seed, weight.data.data(), drawn_bias);
        if (status != GRILLY_OK) return Result<Conv>(status, std::move(*conv));
        return with_parameters(context, std::move(*conv), std::move(weight), std::move(bias));
    }

    /// A layer on a device with copies of this one's parameters. Gradients, the kept input and a packed weight stay
    /// behind.
    Result<Conv<D, Transposed, DeviceTensor>> try_to_device(const Context &context) const {
        static_assert(ON_HOST, "the layer is on a device");
        using OnDevice = Conv<D, Transposed, DeviceTensor>;
        auto conv = OnDevice::without_parameters(context, options_);
        if (!conv) return conv;
        conv->training = training;
        return OnDevice::with_parameters(context, std::move(*conv), weight, bias);
    }

    /// The output for `x`; in training, `x` is kept for `backward`: as a copy, or itself if it is moved in.
    Result<T> try_forward(const T &x) {
        auto y = compute(x);
        if (!y || !training) return y;
        auto kept = detail::copy(x);
        if (!kept) return kept;
        input_ = std::move(*kept);
        return y;
    }
    Result<T> try_forward(T &&x) {
        auto y = compute(x);
        if (y && training) input_ = std::move(x);
        return y;
    }

    /// The gradient with respect to the input of the latest `forward` in training; adds to `weight_grad`, `bias_grad`.
    Result<T> try_backward(const T &dy) {
        if (rank(input_) == 0) return refuse("backward() needs a forward() in training before it");
        if (rank(dy) != rank(input_)) return refuse("dy: expected the rank of the input");
        auto dx = detail::like(input_, detail::shape_of(input_));
        if (!dx) return dx;
        const grilly_status status = try_backward(view(input_), view(dy), view(*dx));
        return Result<T>(status, std::move(*dx));
    }

    /// The same on views in host or device memory, of 4 axes (a sequence is `[N, C, 1, L]`); nothing is kept.
    grilly_status try_forward(const ConstTensor &x, const Tensor &y) const {
        Io io = parameters();
        io.x = x;
        io.y = y;
        return op_.try_forward(io);
    }
    /// Overwrites `dx`, which may be absent, and adds to `weight_grad` and `bias_grad`.
    grilly_status try_backward(const ConstTensor &x, const ConstTensor &dy, const Tensor &dx) {
        grilly_status status = try_start_grad(weight, weight_grad);
        if (status == GRILLY_OK && has_bias()) status = try_start_grad(bias, bias_grad);
        if (status != GRILLY_OK) return status;
        Io io = parameters();
        io.x = x;
        io.dy = dy;
        io.dx = dx;
        io.dweight = view(weight_grad);
        if (has_bias()) io.dbias = Tensor(bias_grad);
        io.accumulate_parameters = true;
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
    grilly_status try_zero_grad() {
        const grilly_status status = detail::zero(weight_grad);
        return status == GRILLY_OK ? detail::zero(bias_grad) : status;
    }

    bool has_bias() const noexcept { return rank(bias) != 0; }

    /// `weight`, and `bias` if there is one; valid as long as the layer stays where it is. Saving copies the values,
    /// loading assigns to them.
    std::vector<NamedParameter<T>> named_parameters() {
        std::vector<NamedParameter<T>> parameters{{"weight", weight, weight_grad}};
        if (has_bias()) parameters.push_back({"bias", bias, bias_grad});
        return parameters;
    }

    /// The input that `backward` will use: of the latest `forward` in training. A residual connection adds it, and of
    /// a layer behind a ReLU it is what `relu_backward` needs.
    const T &input() const noexcept { return input_; }

    const Options &options() const noexcept { return options_; }
    /// The operation without the parameters.
    const grilly::Conv2d &op() const noexcept { return op_; }

#if defined(__cpp_exceptions)
    Conv(const Context &context, const Options &options, std::uint64_t seed = 0)
        : Conv(create(context, options, seed).value()) {}
    Conv<D, Transposed, DeviceTensor> to_device(const Context &context) const { return try_to_device(context).value(); }
    T forward(const T &x) { return try_forward(x).value(); }
    T forward(T &&x) { return try_forward(std::move(x)).value(); }
    T operator()(const T &x) { return forward(x); }
    T operator()(T &&x) { return forward(std::move(x)); }
    T backward(const T &dy) { return try_backward(dy).value(); }
    void forward(const ConstTensor &x, const Tensor &y) const { check(try_forward(x, y)); }
    void backward(const ConstTensor &x, const ConstTensor &dy, const Tensor &dx) { check(try_backward(x, dy, dx)); }
    void pack() { check(try_pack()); }
    void zero_grad() { check(try_zero_grad()); }
#endif

private:
    template <std::size_t, bool, class>
    friend class Conv;

    static constexpr bool ON_HOST = std::is_same<T, Array>::value;
    static constexpr std::int32_t BATCHED = D + 2;
    static constexpr std::int32_t UNBATCHED = D + 1;

    grilly::Conv2d op_;
    Options options_;
    Weights packed_{nullptr};
    T input_;

    Conv(grilly::Conv2d op, const Options &options) : op_(std::move(op)), options_(options) {}

    static Result<Conv> without_parameters(const Context &context, const Options &options) {
        auto op = grilly::Conv2d::create(context, options);
        return Result<Conv>(op.status(), Conv(std::move(*op), options));
    }
    static Result<Conv> with_parameters(const Context &context, Conv conv, Array weight, Array bias) {
        auto placed = detail::place(context, std::move(weight), conv.weight);
        if (!placed) return Result<Conv>(placed.status(), std::move(conv), placed.message());
        conv.weight = std::move(*placed);
        if (bias.shape.rank == 0) return Result<Conv>(GRILLY_OK, std::move(conv));
        placed = detail::place(context, std::move(bias), conv.bias);
        conv.bias = std::move(*placed);
        return Result<Conv>(placed.status(), std::move(conv), placed.message());
    }

    Result<T> compute(const T &x) const {
        const Shape &input = detail::shape_of(x);
        if (!known_rank(input)) return refuse(D == 2 ? "x: expected [N, C, H, W] or [C, H, W]"
                                                     : "x: expected [N, C, L] or [C, L]");
        auto shape = op_.try_output_shape(widen(input));
        if (!shape) return Result<T>(shape.status(), T(), shape.message());
        auto y = detail::like(x, narrow(*shape, input.rank));
        if (!y) return y;
        const grilly_status status = try_forward(view(x), view(*y));
        return Result<T>(status, std::move(*y));
    }

    /// Zeros of the parameter's shape, if there is no gradient yet. If the parameter holds nothing, the call will say
    /// so.
    static grilly_status try_start_grad(const T &parameter, T &grad) {
        if (!detail::is_empty(grad) || detail::is_empty(parameter)) return GRILLY_OK;
        auto zeros = detail::like(parameter, detail::shape_of(parameter));
        const grilly_status status = zeros ? detail::zero(*zeros) : zeros.status();
        if (status == GRILLY_OK) grad = std::move(*zeros);
        return status;
    }

    static Result<T> refuse(const char *message) { return Result<T>(GRILLY_ERROR_INVALID_ARGUMENT, T(), message); }

    static std::int32_t rank(const T &x) { return detail::shape_of(x).rank; }
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

    static ConstTensor view(const T &x) { return detail::view(x, widen(detail::shape_of(x))); }
    static Tensor view(T &x) { return detail::view(x, widen(detail::shape_of(x))); }

    Io parameters() const {
        Io io;
        if (packed_) io.prepared = &packed_;
        else io.weight = view(weight);
        if (has_bias()) io.bias = ConstTensor(bias);
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
using DeviceConv2d = Conv<2, false, DeviceTensor>;
using DeviceConv1d = Conv<1, false, DeviceTensor>;
using DeviceConvTranspose2d = Conv<2, true, DeviceTensor>;
using DeviceConvTranspose1d = Conv<1, true, DeviceTensor>;

}  // namespace nn
}  // namespace grilly

#endif
