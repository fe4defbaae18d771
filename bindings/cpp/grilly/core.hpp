// The objects of grilly.h with owners, and views of tensors. See grilly.hpp for errors and threads.
#ifndef GRILLY_CORE_HPP
#define GRILLY_CORE_HPP

#include <grilly.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#if defined(__cpp_exceptions)
#include <stdexcept>
#endif
#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_span)
#include <span>
#endif

namespace grilly {

#if defined(__cpp_exceptions)
/// What the throwing forms throw: a sentence that names the argument, its value and what is legal.
class Error : public std::runtime_error {
public:
    Error(grilly_status status, const char *message) : std::runtime_error(message), status_(status) {}

    /// A `GRILLY_ERROR_*` code.
    grilly_status status() const noexcept { return status_; }

private:
    grilly_status status_;
};

/// Throws the calling thread's latest error unless `status` is `GRILLY_OK`.
inline void check(grilly_status status) {
    if (status != GRILLY_OK) throw Error(status, grilly_last_error_message());
}
#endif

/// A value, or why there is none.
template <class T>
class [[nodiscard]] Result {
public:
    /// `value` counts only if `status` is `GRILLY_OK`.
    Result(grilly_status status, T value, const char *message = grilly_last_error_message())
        : status_(status), message_(message), value_(std::move(value)) {}

    explicit operator bool() const noexcept { return status_ == GRILLY_OK; }
    grilly_status status() const noexcept { return status_; }

    /// What went wrong; valid until this thread's next error.
    const char *message() const noexcept { return status_ == GRILLY_OK ? "" : message_; }

    /// The value; only after a success.
    T &operator*() & noexcept { return value_; }
    const T &operator*() const & noexcept { return value_; }
    T &&operator*() && noexcept { return std::move(value_); }
    T *operator->() noexcept { return &value_; }
    const T *operator->() const noexcept { return &value_; }

#if defined(__cpp_exceptions)
    /// Moves the value out, or throws an Error.
    T value() && {
        if (status_ != GRILLY_OK) throw Error(status_, message_);
        return std::move(value_);
    }
#endif

private:
    grilly_status status_;
    const char *message_;
    T value_;
};

namespace detail {

/// The only owner of a C handle.
template <class H, grilly_status (*Destroy)(H *)>
class Handle {
public:
    /// Takes over a handle of the C API; of nullptr, owns nothing.
    explicit Handle(H *raw) noexcept : raw_(raw) {}
    Handle(Handle &&other) noexcept : raw_(other.release()) {}
    Handle &operator=(Handle &&other) noexcept {
        Handle taken(std::move(other));
        std::swap(raw_, taken.raw_);
        return *this;
    }
    ~Handle() { Destroy(raw_); }

    /// The handle for the C API; nullptr after a move.
    H *get() const noexcept { return raw_; }
    explicit operator bool() const noexcept { return raw_ != nullptr; }

    /// Gives the handle to the caller, who destroys it.
    H *release() noexcept { return std::exchange(raw_, nullptr); }

private:
    H *raw_;
};

/// Turns "create into an out-parameter" into "return an owner".
template <class T, class Create>
Result<T> make(Create create) {
    decltype(std::declval<T>().get()) raw = nullptr;
    const grilly_status status = create(&raw);
    return Result<T>(status, T(raw));
}

/// The same for a structure that begins with its size.
template <class S, class Get>
Result<S> fill(void (*init)(S *, std::size_t), Get get) {
    S value;
    init(&value, sizeof value);
    const grilly_status status = get(&value);
    return Result<S>(status, value);
}

}  // namespace detail

/// Sizes of a tensor, outermost first: 1 to 4 of them.
struct Shape {
    std::int32_t rank = 0;
    std::array<std::int64_t, 4> sizes{};

    Shape() = default;
    Shape(std::initializer_list<std::int64_t> list) : rank(static_cast<std::int32_t>(list.size())) {
        // A fifth size is not kept, but the rank of 5 is, so that the library refuses it by name.
        std::copy_n(list.begin(), std::min<std::size_t>(list.size(), 4), sizes.begin());
    }

    std::int64_t operator[](std::size_t axis) const { return sizes[axis]; }
    friend bool operator==(const Shape &a, const Shape &b) { return a.rank == b.rank && a.sizes == b.sizes; }
    friend bool operator!=(const Shape &a, const Shape &b) { return !(a == b); }

    /// Their product; 0 if there are none, or one is negative.
    std::size_t elements() const {
        std::size_t product = rank > 0 ? 1 : 0;
        for (std::int32_t axis = 0; axis < std::min(rank, 4); ++axis) {
            product *= static_cast<std::size_t>(std::max<std::int64_t>(sizes[static_cast<std::size_t>(axis)], 0));
        }
        return product;
    }
};

/// An array in host memory: row-major, and owned.
struct Array {
    Shape shape;
    std::vector<float> data;

    Array() = default;
    /// Zeros.
    explicit Array(const Shape &sizes) : shape(sizes), data(sizes.elements()) {}
    /// `values` has as many elements as the shape says.
    Array(const Shape &sizes, std::vector<float> values) : shape(sizes), data(std::move(values)) {}
};

/// One device. `Context context;` opens the best one; see `grilly_context_create` for the order of choice.
class Context : public detail::Handle<grilly_context, grilly_context_destroy> {
public:
    using Handle::Handle;

    /// Opens `device`: an index, `GRILLY_DEVICE_AUTO` or `GRILLY_DEVICE_CPU`.
    static Result<Context> create(std::int32_t device = GRILLY_DEVICE_AUTO) {
        grilly_context_desc desc;
        grilly_context_desc_init(&desc, sizeof desc);
        desc.device = device;
        return create(desc);
    }
    static Result<Context> create(const grilly_context_desc &desc) {
        return detail::make<Context>([&](grilly_context **out) { return grilly_context_create(&desc, out); });
    }

    /// The device, and in `note` how it came to be chosen.
    Result<grilly_device_info> try_device_info() const {
        return detail::fill(grilly_device_info_init,
                            [&](grilly_device_info *out) { return grilly_context_device_info(get(), out); });
    }
    Result<grilly_stats> try_stats() const {
        return detail::fill(grilly_stats_init, [&](grilly_stats *out) { return grilly_context_stats(get(), out); });
    }
    /// Gives pooled memory that nothing uses back to the device.
    grilly_status try_trim() const { return grilly_context_trim(get()); }

#if defined(__cpp_exceptions)
    explicit Context(std::int32_t device = GRILLY_DEVICE_AUTO) : Context(create(device).value()) {}
    explicit Context(const grilly_context_desc &desc) : Context(create(desc).value()) {}
    grilly_device_info device_info() const { return try_device_info().value(); }
    grilly_stats stats() const { return try_stats().value(); }
    void trim() const { check(try_trim()); }
#endif
};

/// Every device: Vulkan's in Vulkan's order, then the CPU.
inline Result<std::vector<grilly_device_info>> try_devices() {
    std::uint32_t count = 0;
    grilly_status status = grilly_device_count(&count);
    std::vector<grilly_device_info> devices(count);
    for (std::uint32_t index = 0; index < count && status == GRILLY_OK; ++index) {
        grilly_device_info_init(&devices[index], sizeof devices[index]);
        status = grilly_device_info_get(index, &devices[index]);
    }
    return Result<std::vector<grilly_device_info>>(status, std::move(devices));
}
#if defined(__cpp_exceptions)
inline std::vector<grilly_device_info> devices() { return try_devices().value(); }
#endif

/// Memory on a context's device, zeroed. The caller orders access to its contents.
class Buffer : public detail::Handle<grilly_buffer, grilly_buffer_destroy> {
public:
    using Handle::Handle;

    static Result<Buffer> create(const Context &context, std::uint64_t bytes) {
        return detail::make<Buffer>([&](grilly_buffer **out) {
            return grilly_buffer_create(context.get(), bytes, out);
        });
    }

    /// Bytes, as it was created.
    Result<std::uint64_t> try_size() const {
        std::uint64_t bytes = 0;
        const grilly_status status = grilly_buffer_size(get(), &bytes);
        return Result<std::uint64_t>(status, bytes);
    }
    /// Copies `count` floats to byte `offset`, and waits for it.
    grilly_status try_write(const float *data, std::size_t count, std::uint64_t offset = 0) const {
        return grilly_buffer_write(get(), offset, data, count * sizeof(float));
    }
    /// Copies `count` floats from byte `offset`, and waits for it.
    grilly_status try_read(float *data, std::size_t count, std::uint64_t offset = 0) const {
        return grilly_buffer_read(get(), offset, data, count * sizeof(float));
    }

#if defined(__cpp_exceptions)
    Buffer(const Context &context, std::uint64_t bytes) : Buffer(create(context, bytes).value()) {}
    std::uint64_t size() const { return try_size().value(); }
    void write(const std::vector<float> &data, std::uint64_t offset = 0) const {
        check(try_write(data.data(), data.size(), offset));
    }
    void read(std::vector<float> &data, std::uint64_t offset = 0) const {
        check(try_read(data.data(), data.size(), offset));
    }
#if defined(__cpp_lib_span)
    void write(std::span<const float> data, std::uint64_t offset = 0) const {
        check(try_write(data.data(), data.size(), offset));
    }
    void read(std::span<float> data, std::uint64_t offset = 0) const {
        check(try_read(data.data(), data.size(), offset));
    }
#endif
#endif
};

/// A view of a tensor that a call only reads; a default one is absent. What it views must outlive the call.
class ConstTensor {
public:
    ConstTensor() = default;
    /// `count` floats of host memory, row-major.
    ConstTensor(const float *data, std::size_t count, const Shape &shape) {
        // The C structure has one pointer for both directions; only Tensor hands it out for results.
        grilly_tensor_init_host(&raw_, sizeof raw_, const_cast<float *>(data), count * sizeof(float), shape.rank,
                                shape.sizes.data());
    }
    ConstTensor(const std::vector<float> &data, const Shape &shape) : ConstTensor(data.data(), data.size(), shape) {}
    ConstTensor(const Array &array) : ConstTensor(array.data, array.shape) {}
    ConstTensor(std::vector<float> &&, const Shape &) = delete;  // would be gone before the call
    ConstTensor(Array &&) = delete;
    /// Device memory from byte `offset` of a buffer on.
    ConstTensor(const Buffer &buffer, const Shape &shape, std::uint64_t offset = 0) {
        grilly_tensor_init_device(&raw_, sizeof raw_, buffer.get(), offset, shape.rank, shape.sizes.data());
    }
#if defined(__cpp_lib_span)
    ConstTensor(std::span<const float> data, const Shape &shape) : ConstTensor(data.data(), data.size(), shape) {}
#endif

    /// Another layout in host memory: elements between neighbours along each axis (may be negative; 0 only where
    /// the tensor is read), and the position of element 0.
    void set_strides(std::initializer_list<std::int64_t> strides, std::size_t first = 0) {
        std::copy_n(strides.begin(), std::min<std::size_t>(strides.size(), 4), raw_.strides);
        raw_.offset = first * sizeof(float);
    }

    /// For the C API; nullptr if absent.
    const grilly_tensor *get() const noexcept { return raw_.struct_size == 0 ? nullptr : &raw_; }

private:
    grilly_tensor raw_{};
};

/// A view of a tensor that a call may write.
class Tensor : public ConstTensor {
public:
    Tensor() = default;
    Tensor(float *data, std::size_t count, const Shape &shape) : ConstTensor(data, count, shape) {}
    Tensor(std::vector<float> &data, const Shape &shape) : ConstTensor(data, shape) {}
    Tensor(Array &array) : ConstTensor(array) {}
    Tensor(const Buffer &buffer, const Shape &shape, std::uint64_t offset = 0) : ConstTensor(buffer, shape, offset) {}
#if defined(__cpp_lib_span)
    Tensor(std::span<float> data, const Shape &shape) : ConstTensor(data, shape) {}
#endif
};

/// A weight packed once; see `grilly_weights_create`.
class Weights : public detail::Handle<grilly_weights, grilly_weights_destroy> {
public:
    using Handle::Handle;
};

/// The tensors of one call; those that are absent are not there, or not wanted.
struct Io {
    ConstTensor x;       ///< `[N, C, H, W]`
    ConstTensor weight;  ///< `[K, C / groups, R, S]`, transposed `[C, K / groups, R, S]`
    ConstTensor bias;    ///< `[K]`
    Tensor y;            ///< `[N, K, P, Q]`
    ConstTensor dy;      ///< Gradient with respect to `y`, as are the others to theirs.
    Tensor dx;
    Tensor dweight;
    Tensor dbias;
    const Weights *prepared = nullptr;  ///< Instead of `weight`.
    bool accumulate = false;            ///< Add to the gradients instead of overwriting them.

    /// The C structure; valid as long as this is.
    grilly_conv2d_io raw() const {
        grilly_conv2d_io io;
        grilly_conv2d_io_init(&io, sizeof io);
        io.x = x.get();
        io.weight = weight.get();
        io.bias = bias.get();
        io.y = y.get();
        io.dy = dy.get();
        io.dx = dx.get();
        io.dweight = dweight.get();
        io.dbias = dbias.get();
        io.prepared = prepared == nullptr ? nullptr : prepared->get();
        io.flags = accumulate ? GRILLY_ACCUMULATE : 0;
        return io;
    }
};

/// One pass over one input shape, ready to run in slices; see `grilly_plan_run`.
class Plan : public detail::Handle<grilly_plan, grilly_plan_destroy> {
public:
    using Handle::Handle;

    Result<grilly_plan_info> try_info() const {
        return detail::fill(grilly_plan_info_init,
                            [&](grilly_plan_info *out) { return grilly_plan_info_get(get(), out); });
    }
    grilly_status try_run(const Io &io, std::uint32_t first, std::uint32_t count) const {
        const grilly_conv2d_io raw = io.raw();
        return grilly_plan_run(get(), &raw, first, count);
    }

#if defined(__cpp_exceptions)
    grilly_plan_info info() const { return try_info().value(); }
    void run(const Io &io, std::uint32_t first, std::uint32_t count) const { check(try_run(io, first, count)); }
#endif
};

/// A stateless convolution: it has no weight, every call brings its own. nn::Conv2d is the layer that owns one.
class Conv2d : public detail::Handle<grilly_conv2d, grilly_conv2d_destroy> {
public:
    using Handle::Handle;

    /// `desc` is a `grilly_conv2d_desc`, or the `nn::Conv2dOptions` that make one.
    static Result<Conv2d> create(const Context &context, const grilly_conv2d_desc &desc) {
        return detail::make<Conv2d>([&](grilly_conv2d **out) {
            return grilly_conv2d_create(context.get(), &desc, out);
        });
    }

    /// `[N, K, P, Q]` for an input of shape `[N, C, H, W]`.
    Result<Shape> try_output_shape(const Shape &input) const {
        Shape output{0, 0, 0, 0};
        const grilly_status status = grilly_conv2d_output_shape(get(), input.sizes.data(), output.sizes.data());
        return Result<Shape>(status, output);
    }
    /// Bytes of the tensors, and of the scratch memory on this device.
    Result<grilly_memory> try_memory(const Shape &input) const {
        return detail::fill(grilly_memory_init, [&](grilly_memory *out) {
            return grilly_conv2d_memory(get(), input.sizes.data(), out);
        });
    }
    /// Reads `x`, `weight` or `prepared`, `bias`; writes `y`.
    grilly_status try_forward(const Io &io) const {
        const grilly_conv2d_io raw = io.raw();
        return grilly_conv2d_forward(get(), &raw);
    }
    /// Writes, or adds to, those of `dx`, `dweight`, `dbias` that are there.
    grilly_status try_backward(const Io &io) const {
        const grilly_conv2d_io raw = io.raw();
        return grilly_conv2d_backward(get(), &raw);
    }
    /// PyTorch's default initialisation. `weight` has K · C/groups · R · S floats, `bias` K of them or is nullptr.
    grilly_status try_init_parameters(std::uint64_t seed, float *weight, float *bias) const {
        return grilly_conv2d_init_parameters(get(), seed, weight, bias);
    }
    Result<Weights> try_pack(const ConstTensor &weight) const {
        return detail::make<Weights>([&](grilly_weights **out) {
            return grilly_weights_create(get(), weight.get(), out);
        });
    }
    /// `pass` is a `GRILLY_PASS_*`; `flags` are of `GRILLY_ACCUMULATE`, `GRILLY_WITH_BIAS`, `GRILLY_WITH_WEIGHTS`.
    Result<Plan> try_plan(std::int32_t pass, const Shape &input, std::uint32_t flags = 0) const {
        return detail::make<Plan>([&](grilly_plan **out) {
            return grilly_conv2d_plan(get(), pass, input.sizes.data(), flags, out);
        });
    }

#if defined(__cpp_exceptions)
    Conv2d(const Context &context, const grilly_conv2d_desc &desc) : Conv2d(create(context, desc).value()) {}
    Shape output_shape(const Shape &input) const { return try_output_shape(input).value(); }
    grilly_memory memory(const Shape &input) const { return try_memory(input).value(); }
    void forward(const Io &io) const { check(try_forward(io)); }
    void backward(const Io &io) const { check(try_backward(io)); }
    void init_parameters(std::uint64_t seed, float *weight, float *bias) const {
        check(try_init_parameters(seed, weight, bias));
    }
    Weights pack(const ConstTensor &weight) const { return try_pack(weight).value(); }
    Plan plan(std::int32_t pass, const Shape &input, std::uint32_t flags = 0) const {
        return try_plan(pass, input, flags).value();
    }
#endif
};

}  // namespace grilly

#endif
