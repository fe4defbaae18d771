// All four results of a convolution in float64, and the bound that the accuracy contract sets for each element.
#ifndef GRILLY_TESTS_REFERENCE_HPP
#define GRILLY_TESTS_REFERENCE_HPP

#include "cases.hpp"

#include <algorithm>
#include <cmath>

/// A tensor of sums, with the sum of the magnitudes of what was added to each.
struct Sums {
    std::vector<double> value, magnitude, added;
    double terms;  // K of the contract, for an element of which a padding mode makes no copies

    Sums(std::size_t count, double terms_of_each)
        : value(count), magnitude(count), added(count), terms(terms_of_each) {}

    void add(std::size_t at, double term) {
        value[at] += term;
        magnitude[at] += std::fabs(term);
        added[at] += 1;
    }

    /// The first element of `got` outside |y - y'| <= 4 sqrt(K) 2^-23 S (`times` the sums), as text; "" if none is.
    std::string differs(const std::vector<float> &got, double times = 1) const {
        if (got.size() != value.size()) return "has " + std::to_string(got.size()) + " elements";
        for (std::size_t i = 0; i < got.size(); ++i) {
            const double k = std::max({terms, added[i], 1.0});
            const double bound = 4 * std::sqrt(k) * std::ldexp(times * magnitude[i], -23) + k * 0x1p-126;
            const double want = times * value[i];
            if (!(std::fabs(got[i] - want) <= bound)) {
                char line[128];
                std::snprintf(line, sizeof line, "[%zu] is %.9g, want %.9g within %.2g", i, got[i], want, bound);
                return line;
            }
        }
        return "";
    }
};

/// Which of `size` elements stands at `at`, counted from the first; -1 for a zero.
inline std::int64_t element_at(std::int32_t mode, std::int64_t at, std::int64_t size) {
    if (at >= 0 && at < size) return at;
    switch (mode) {
        case GRILLY_PADDING_REFLECT: return at < 0 ? -at : 2 * (size - 1) - at;
        case GRILLY_PADDING_REPLICATE: return at < 0 ? 0 : size - 1;
        case GRILLY_PADDING_CIRCULAR: return (at + size) % size;
        default: return -1;
    }
}

struct Reference {
    Sums y, dx, dweight, dbias;

    /// `p`, `q`: the output's height and width.
    Reference(const Case &t, std::int64_t p, std::int64_t q, const std::vector<float> &x,
              const std::vector<float> &weight, const std::vector<float> &bias, const std::vector<float> &dy)
        : y(dy.size(), double(t.c / t.groups * t.kernel[0] * t.kernel[1])),
          dx(x.size(), double(t.k / t.groups * t.kernel[0] * t.kernel[1])),
          dweight(weight.size(), double(t.n * (t.transposed ? t.h * t.w : p * q))),
          dbias(bias.size(), double(t.n * p * q)) {
        for (std::size_t out = 0; out < dy.size() && !bias.empty(); ++out) {
            const std::size_t k = out / std::size_t(p * q) % bias.size();
            y.add(out, bias[k]);
            dbias.add(k, dy[out]);
        }
        const std::int64_t inputs = t.c / t.groups, outputs = t.k / t.groups;
        // The kernel steps through one plane, and reaches into the other: from output to input, or transposed.
        const std::int64_t near[2] = {t.transposed ? t.h : p, t.transposed ? t.w : q};
        const std::int64_t far[2] = {t.transposed ? p : t.h, t.transposed ? q : t.w};
        const auto reached = [&](int axis, std::int64_t at, std::int64_t tap) {
            return element_at(t.padding_mode, at * t.stride[axis] + tap * t.dilation[axis] - t.padding[axis][0], far[axis]);
        };
        for (std::int64_t pair = 0; pair < t.n * t.k * inputs; ++pair) {
            const std::int64_t n = pair / inputs / t.k, k = pair / inputs % t.k;
            const std::int64_t c = k / outputs * inputs + pair % inputs;
            const std::int64_t filter = t.transposed ? c * outputs + k % outputs : k * inputs + c % inputs;
            for (std::int64_t row = 0; row < near[0]; ++row)
                for (std::int64_t r = 0; r < t.kernel[0]; ++r) {
                    const std::int64_t far_row = reached(0, row, r);
                    if (far_row < 0) continue;
                    for (std::int64_t column = 0; column < near[1]; ++column)
                        for (std::int64_t s = 0; s < t.kernel[1]; ++s) {
                            const std::int64_t far_column = reached(1, column, s);
                            if (far_column < 0) continue;
                            const std::int64_t one = row * near[1] + column, other = far_row * far[1] + far_column;
                            const auto in = std::size_t((n * t.c + c) * t.h * t.w + (t.transposed ? one : other));
                            const auto out = std::size_t((n * t.k + k) * p * q + (t.transposed ? other : one));
                            const auto tap = std::size_t((filter * t.kernel[0] + r) * t.kernel[1] + s);
                            y.add(out, double(x[in]) * weight[tap]);
                            dx.add(in, double(dy[out]) * weight[tap]);
                            dweight.add(tap, double(dy[out]) * x[in]);
                        }
                }
        }
    }
};

#endif
