// Shapes, arrays in host memory, and views of tensors. See grilly.hpp for errors and threads.
#ifndef GRILLY_TENSOR_HPP
#define GRILLY_TENSOR_HPP

#include "core.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>

namespace grilly {

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

    /// Their product; 0 if there are none, or one is negative; the largest number there is if it overflows.
    std::size_t elements() const {
        constexpr std::size_t LARGEST = static_cast<std::size_t>(-1);
        std::size_t product = rank > 0 ? 1 : 0;
        bool overflows = false;
        for (std::int32_t axis = 0; axis < std::min(rank, 4); ++axis) {
            const std::int64_t signed_size = sizes[static_cast<std::size_t>(axis)];
            if (signed_size <= 0) return 0;
            const auto size = static_cast<std::size_t>(signed_size);
            overflows = overflows || product > LARGEST / size;
            product *= size;
        }
        return overflows ? LARGEST : product;
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

}  // namespace grilly

#endif
