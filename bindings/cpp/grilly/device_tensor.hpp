// Tensors in device memory, and element-wise operations on them. See grilly.hpp for errors and threads.
#ifndef GRILLY_DEVICE_TENSOR_HPP
#define GRILLY_DEVICE_TENSOR_HPP

#include "tensor.hpp"

namespace grilly {

class DeviceTensor;

/// What an element-wise operation takes: a tensor on the same context, or a number that stands for one of any shape.
class Operand {
public:
    Operand(const DeviceTensor &tensor) : tensor_(&tensor) {}
    Operand(float number) : number_(number) {}

private:
    friend class DeviceTensor;
    const DeviceTensor *tensor_ = nullptr;
    float number_ = 1;
};

/// A tensor that owns its memory on a context's device: float32, row-major, of 1 to 4 sizes, which may be 0. It moves,
/// and is only copied by `copy()`. It converts to a ConstTensor or Tensor wherever a call takes a view. The memory
/// returns to the context's pool with the tensor.
///
/// Only creation from values and `buffer().write()` upload; only `to_host()` and `buffer().read()` download. The
/// context must be open when it computes. Any thread may hold it; while one changes its contents, no other may use
/// them.
///
/// Operands broadcast to the result as NumPy's arrays do; results are rounded as `grilly_elementwise` says, and `alpha`
/// is a factor of `b`. Operands of another context, or that do not broadcast, are errors.
class DeviceTensor {
public:
    /// Holds nothing, until a tensor is moved in.
    DeviceTensor() = default;

    /// Zeros.
    static Result<DeviceTensor> create(const Context &context, const Shape &shape) {
        return allocate(context.get(), shape, grilly_buffer_create);
    }
    /// A copy of `count` floats of host memory, row-major; as many as the shape says.
    static Result<DeviceTensor> create(const Context &context, const float *data, std::size_t count,
                                       const Shape &shape) {
        auto made = allocate(context.get(), shape, grilly_buffer_create_uninitialized);
        if (!made) return made;
        if (count != shape.elements()) return refuse("data: expected as many elements as the shape says");
        if (count == 0) return made;
        const grilly_status status = made->buffer_.try_write(data, count);
        return Result<DeviceTensor>(status, std::move(*made));
    }
    static Result<DeviceTensor> create(const Context &context, const std::vector<float> &data, const Shape &shape) {
        return create(context, data.data(), data.size(), shape);
    }
    static Result<DeviceTensor> create(const Context &context, const Array &array) {
        return create(context, array.data, array.shape);
    }
    /// Another in the same context, whose values are unspecified until they are written; for results.
    Result<DeviceTensor> try_like(const Shape &shape) const {
        return allocate(context_, shape, grilly_buffer_create_uninitialized);
    }
    /// The same values in memory of its own.
    Result<DeviceTensor> try_copy() const {
        auto made = try_like(shape_);
        if (!made) return made;
        const grilly_status status = made->try_copy_(*this);
        return Result<DeviceTensor>(status, std::move(*made));
    }

    const Shape &shape() const noexcept { return shape_; }
    const Buffer &buffer() const noexcept { return buffer_; }
    /// Whether it owns memory: false of a default one, and after a move.
    explicit operator bool() const noexcept { return bool(buffer_); }

    operator ConstTensor() const & { return ConstTensor(buffer_, shape_); }
    operator Tensor() & { return Tensor(buffer_, shape_); }
    operator ConstTensor() const && = delete;  // would be gone before the call

    /// The values in host memory.
    Result<Array> try_to_host() const {
        Array array(shape_);
        const std::size_t count = array.data.size();
        const grilly_status status = count == 0 ? GRILLY_OK : buffer_.try_read(array.data.data(), count);
        return Result<Array>(status, std::move(array));
    }
    /// Moves the memory into a tensor of another shape with as many elements; if they differ, it stays here.
    Result<DeviceTensor> try_reshape(const Shape &shape) && {
        if (!buffer_) return refuse("the tensor owns no memory");
        if (!legal(shape)) return refuse(SHAPES);
        if (shape.elements() != shape_.elements()) return refuse("shape: expected as many elements as the tensor has");
        return Result<DeviceTensor>(GRILLY_OK, DeviceTensor(context_, std::move(buffer_), shape));
    }

    /// `*this = op(a, alpha · b)` for a `GRILLY_OP_*`. `a` and `b` may be this tensor.
    grilly_status try_assign(std::int32_t op, const DeviceTensor &a, const Operand &b, float alpha = 1) {
        // A number's place is taken by alpha.
        return grilly_elementwise(context_, op, ConstTensor(a).get(), view(b).get(), alpha * b.number_,
                                  Tensor(*this).get());
    }
    /// `*this += alpha · b`: an optimiser's `weight.try_add_(weight_grad, -rate)`.
    grilly_status try_add_(const Operand &b, float alpha = 1) { return try_assign(GRILLY_OP_ADD, *this, b, alpha); }
    /// `*this -= alpha · b`.
    grilly_status try_sub_(const Operand &b, float alpha = 1) {
        return try_assign(GRILLY_OP_SUBTRACT, *this, b, alpha);
    }
    grilly_status try_mul_(const Operand &b) { return try_assign(GRILLY_OP_MULTIPLY, *this, b); }
    grilly_status try_div_(const Operand &b) { return try_assign(GRILLY_OP_DIVIDE, *this, b); }
    grilly_status try_relu_() { return try_assign(GRILLY_OP_MAXIMUM, *this, 0.0f); }
    /// Overwrites the values by those of `source`, which broadcasts.
    grilly_status try_copy_(const Operand &source) {
        return grilly_elementwise(context_, GRILLY_OP_COPY, view(source).get(), nullptr, source.number_,
                                  Tensor(*this).get());
    }
    grilly_status try_fill_(float value) { return try_copy_(value); }
    grilly_status try_zero_() { return try_fill_(0); }

#if defined(__cpp_exceptions)
    DeviceTensor(const Context &context, const Shape &shape) : DeviceTensor(create(context, shape).value()) {}
    DeviceTensor(const Context &context, const float *data, std::size_t count, const Shape &shape)
        : DeviceTensor(create(context, data, count, shape).value()) {}
    DeviceTensor(const Context &context, const std::vector<float> &data, const Shape &shape)
        : DeviceTensor(create(context, data, shape).value()) {}
    DeviceTensor(const Context &context, const Array &array) : DeviceTensor(create(context, array).value()) {}
#if defined(__cpp_lib_span)
    DeviceTensor(const Context &context, std::span<const float> data, const Shape &shape)
        : DeviceTensor(context, data.data(), data.size(), shape) {}
#endif
    DeviceTensor like(const Shape &shape) const { return try_like(shape).value(); }
    DeviceTensor copy() const { return try_copy().value(); }
    Array to_host() const { return try_to_host().value(); }
    DeviceTensor reshape(const Shape &shape) && { return std::move(*this).try_reshape(shape).value(); }
    DeviceTensor &assign(std::int32_t op, const DeviceTensor &a, const Operand &b, float alpha = 1) {
        return checked(try_assign(op, a, b, alpha));
    }
    DeviceTensor &add_(const Operand &b, float alpha = 1) { return checked(try_add_(b, alpha)); }
    DeviceTensor &sub_(const Operand &b, float alpha = 1) { return checked(try_sub_(b, alpha)); }
    DeviceTensor &mul_(const Operand &b) { return checked(try_mul_(b)); }
    DeviceTensor &div_(const Operand &b) { return checked(try_div_(b)); }
    DeviceTensor &relu_() { return checked(try_relu_()); }
    DeviceTensor &copy_(const Operand &source) { return checked(try_copy_(source)); }
    DeviceTensor &fill_(float value) { return checked(try_fill_(value)); }
    DeviceTensor &zero_() { return checked(try_zero_()); }
#endif

private:
    static constexpr const char *SHAPES = "shape: expected 1 to 4 sizes of 0 or more, and less than 2^63 bytes";

    // A handle's value outlives a move of its owner, and a stale one is an error: no need to refer to the Context.
    const grilly_context *context_ = nullptr;
    Buffer buffer_{nullptr};
    Shape shape_;

    DeviceTensor(const grilly_context *context, Buffer buffer, const Shape &shape)
        : context_(context), buffer_(std::move(buffer)), shape_(shape) {}

    static Result<DeviceTensor> refuse(const char *message) {
        return Result<DeviceTensor>(GRILLY_ERROR_INVALID_ARGUMENT, DeviceTensor(), message);
    }

    static bool legal(const Shape &shape) {
        if (shape.rank < 1 || shape.rank > 4) return false;
        const auto end = shape.sizes.begin() + shape.rank;
        return std::all_of(shape.sizes.begin(), end, [](std::int64_t size) { return size >= 0; }) &&
               shape.elements() < (std::size_t{1} << 61);
    }

    static Result<DeviceTensor> allocate(const grilly_context *context, const Shape &shape,
                                         decltype(grilly_buffer_create) *create) {
        if (!legal(shape)) return refuse(SHAPES);
        // A tensor without elements has memory too, so that it belongs to a device like any other.
        const std::uint64_t bytes = std::max<std::size_t>(shape.elements(), 1) * sizeof(float);
        auto buffer = detail::make<Buffer>([&](grilly_buffer **out) { return create(context, bytes, out); });
        const grilly_status status = buffer.status();
        return Result<DeviceTensor>(status, DeviceTensor(context, std::move(*buffer), shape));
    }

    /// Absent for a number.
    static ConstTensor view(const Operand &operand) {
        return operand.tensor_ == nullptr ? ConstTensor() : ConstTensor(*operand.tensor_);
    }

#if defined(__cpp_exceptions)
    DeviceTensor &checked(grilly_status status) {
        check(status);
        return *this;
    }
#endif
};

namespace detail {

/// `op(a, alpha · b)` as a new tensor of the shape of `a`.
inline Result<DeviceTensor> elementwise(std::int32_t op, const DeviceTensor &a, const Operand &b, float alpha = 1) {
    auto out = a.try_like(a.shape());
    if (!out) return out;
    const grilly_status status = out->try_assign(op, a, b, alpha);
    return Result<DeviceTensor>(status, std::move(*out));
}

}  // namespace detail

// Results are new tensors of the shape of `a`, to which `b` broadcasts.

/// `a + alpha · b`.
inline Result<DeviceTensor> try_add(const DeviceTensor &a, const Operand &b, float alpha = 1) {
    return detail::elementwise(GRILLY_OP_ADD, a, b, alpha);
}
/// `a - alpha · b`.
inline Result<DeviceTensor> try_sub(const DeviceTensor &a, const Operand &b, float alpha = 1) {
    return detail::elementwise(GRILLY_OP_SUBTRACT, a, b, alpha);
}
inline Result<DeviceTensor> try_mul(const DeviceTensor &a, const Operand &b) {
    return detail::elementwise(GRILLY_OP_MULTIPLY, a, b);
}
inline Result<DeviceTensor> try_div(const DeviceTensor &a, const Operand &b) {
    return detail::elementwise(GRILLY_OP_DIVIDE, a, b);
}
/// The larger of each pair; NaN if either is.
inline Result<DeviceTensor> try_maximum(const DeviceTensor &a, const Operand &b) {
    return detail::elementwise(GRILLY_OP_MAXIMUM, a, b);
}
/// The smaller of each pair; NaN if either is.
inline Result<DeviceTensor> try_minimum(const DeviceTensor &a, const Operand &b) {
    return detail::elementwise(GRILLY_OP_MINIMUM, a, b);
}
inline Result<DeviceTensor> try_relu(const DeviceTensor &x) { return try_maximum(x, 0.0f); }
/// The gradient of `y = relu(x)`: 0 where `y <= 0`, else `dy`.
inline Result<DeviceTensor> try_relu_backward(const DeviceTensor &dy, const DeviceTensor &y) {
    return detail::elementwise(GRILLY_OP_RELU_BACKWARD, dy, y);
}

#if defined(__cpp_exceptions)
inline DeviceTensor add(const DeviceTensor &a, const Operand &b, float alpha = 1) {
    return try_add(a, b, alpha).value();
}
inline DeviceTensor sub(const DeviceTensor &a, const Operand &b, float alpha = 1) {
    return try_sub(a, b, alpha).value();
}
inline DeviceTensor mul(const DeviceTensor &a, const Operand &b) { return try_mul(a, b).value(); }
inline DeviceTensor div(const DeviceTensor &a, const Operand &b) { return try_div(a, b).value(); }
inline DeviceTensor maximum(const DeviceTensor &a, const Operand &b) { return try_maximum(a, b).value(); }
inline DeviceTensor minimum(const DeviceTensor &a, const Operand &b) { return try_minimum(a, b).value(); }
inline DeviceTensor relu(const DeviceTensor &x) { return try_relu(x).value(); }
inline DeviceTensor relu_backward(const DeviceTensor &dy, const DeviceTensor &y) {
    return try_relu_backward(dy, y).value();
}
#endif

}  // namespace grilly

#endif
