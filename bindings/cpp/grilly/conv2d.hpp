// Convolutions without parameters, and what makes repeating them cheap. See grilly.hpp for errors and threads.
#ifndef GRILLY_CONV2D_HPP
#define GRILLY_CONV2D_HPP

#include "tensor.hpp"

#include <chrono>

namespace grilly {

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
    bool accumulate_input = false;       ///< Add to `dx` instead of overwriting it.
    bool accumulate_parameters = false;  ///< Add to `dweight` and `dbias` instead of overwriting them.

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
        if (accumulate_input) io.flags |= GRILLY_ACCUMULATE_INPUT;
        if (accumulate_parameters) io.flags |= GRILLY_ACCUMULATE_PARAMETERS;
        return io;
    }
};

/// A call that was submitted and may not be done yet; `grilly_conv2d_submit_forward` says what its tensors must not be
/// used for until then. Any thread may wait for it, several times. It waits when it goes, and keeps the device open.
class Ticket : public detail::Handle<grilly_ticket, grilly_ticket_destroy> {
public:
    using Handle::Handle;

    /// Waits until the call is done, as long as it takes; `GRILLY_ERROR_DEVICE_LOST` if it never will be.
    grilly_status try_wait() const { return grilly_ticket_wait(get(), UINT64_MAX); }
    /// Waits at most so long: `GRILLY_ERROR_TIMEOUT` if the call is still under way, after which it may be waited for
    /// again. Of a time that is not positive it only asks.
    grilly_status try_wait_for(std::chrono::nanoseconds time) const {
        return grilly_ticket_wait(get(), time.count() > 0 ? static_cast<std::uint64_t>(time.count()) : 0);
    }

#if defined(__cpp_exceptions)
    void wait() const { check(try_wait()); }
    /// Whether the call is done.
    bool wait_for(std::chrono::nanoseconds time) const {
        const grilly_status status = try_wait_for(time);
        if (status != GRILLY_ERROR_TIMEOUT) check(status);
        return status == GRILLY_OK;
    }
    bool done() const { return wait_for(std::chrono::nanoseconds::zero()); }
#endif
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
        if (input.rank != 4) return refuse<Shape>();
        Shape output{0, 0, 0, 0};
        const grilly_status status = grilly_conv2d_output_shape(get(), input.sizes.data(), output.sizes.data());
        return Result<Shape>(status, output);
    }
    /// Bytes of the tensors, and of the scratch memory on this device.
    Result<grilly_memory> try_memory(const Shape &input) const {
        if (input.rank != 4) return refuse<grilly_memory>();
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
    /// As `try_forward` and `try_backward` on tensors in buffers, but without waiting: the results are there once the
    /// ticket says so, and may be operands of further such calls before.
    Result<Ticket> try_submit_forward(const Io &io) const {
        const grilly_conv2d_io raw = io.raw();
        return detail::make<Ticket>([&](grilly_ticket **out) {
            return grilly_conv2d_submit_forward(get(), &raw, out);
        });
    }
    Result<Ticket> try_submit_backward(const Io &io) const {
        const grilly_conv2d_io raw = io.raw();
        return detail::make<Ticket>([&](grilly_ticket **out) {
            return grilly_conv2d_submit_backward(get(), &raw, out);
        });
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
    /// `pass` is a `GRILLY_PASS_*`; `flags` are of `GRILLY_ACCUMULATE_*`, `GRILLY_WITH_BIAS`, `GRILLY_WITH_WEIGHTS`.
    Result<Plan> try_plan(std::int32_t pass, const Shape &input, std::uint32_t flags = 0) const {
        if (input.rank != 4) return refuse<Plan>(nullptr);
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
    Ticket submit_forward(const Io &io) const { return try_submit_forward(io).value(); }
    Ticket submit_backward(const Io &io) const { return try_submit_backward(io).value(); }
    void init_parameters(std::uint64_t seed, float *weight, float *bias) const {
        check(try_init_parameters(seed, weight, bias));
    }
    Weights pack(const ConstTensor &weight) const { return try_pack(weight).value(); }
    Plan plan(std::int32_t pass, const Shape &input, std::uint32_t flags = 0) const {
        return try_plan(pass, input, flags).value();
    }
#endif

private:
    /// The error of a shape that has not 4 sizes.
    template <class T, class... Arguments>
    static Result<T> refuse(Arguments... arguments) {
        return Result<T>(GRILLY_ERROR_INVALID_ARGUMENT, T(arguments...), "input: expected [N, C, H, W]");
    }
};

}  // namespace grilly

#endif
