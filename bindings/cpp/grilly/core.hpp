// Errors, owners of C handles, devices and their memory. See grilly.hpp for errors and threads.
#ifndef GRILLY_CORE_HPP
#define GRILLY_CORE_HPP

#include <grilly.h>

#include <cstddef>
#include <cstdint>
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

}  // namespace grilly

#endif
