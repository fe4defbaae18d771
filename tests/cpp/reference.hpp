// All four results of a convolution in float64, and the bound that the accuracy contract sets for each element.
#ifndef GRILLY_TESTS_REFERENCE_HPP
#define GRILLY_TESTS_REFERENCE_HPP

#include "cases.hpp"

#include <algorithm>
#include <cmath>

/// A tensor of sums, with the sum of the magnitudes of what was added to each.
struct Sums {
    std::vector<double> value, magnitude;
    double terms;  // K of the contract

    Sums(std::size_t count, double terms_of_each) : value(count), magnitude(count), terms(terms_of_each) {}

    void add(std::size_t at, double term) {
        value[at] += term;
        magnitude[at] += std::fabs(term);
    }

    /// The first element of `got` outside |y - y'| <= 4 sqrt(K) 2^-23 S (`times` the sums), as text; "" if none is.
    std::string differs(const std::vector<float> &got, double times = 1) const {
        if (got.size() != value.size()) return "has " + std::to_string(got.size()) + " elements";
        for (std::size_t i = 0; i < got.size(); ++i) {
            const double bound = 4 * std::sqrt(std::max(terms, 1.0)) * std::ldexp(times * magnitude[i], -23) + terms * 0x1p-126;
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

struct Reference {
    Sums y, dx, dweight, dbias;

    /// `p`, `q`: the output's height and width.
    Reference(const Case &t, std::int64_t p, std::int64_t q, const std::vector<float> &x,
              const std::vector<float> &weight, const std::vector<float> &bias, const std::vector<float> &dy)
        : y(dy.size(), double(t.c / t.groups * t.kernel[0] * t.kernel[1])),
          dx(x.size(), double(t.k / t.groups * t.kernel[0] * t.kernel[1])),
          dweight(weight.size(), double(t.n * p * q)),
          dbias(bias.size(), double(t.n * p * q)) {
        const std::int64_t inputs = t.c / t.groups, outputs = t.k / t.groups;
        std::size_t out = 0;
        for (std::int64_t n = 0; n < t.n; ++n)
            for (std::int64_t k = 0; k < t.k; ++k)
                for (std::int64_t row = 0; row < p; ++row)
                    for (std::int64_t column = 0; column < q; ++column, ++out) {
                        if (!bias.empty()) {
                            y.add(out, bias[std::size_t(k)]);
                            dbias.add(std::size_t(k), dy[out]);
                        }
                        for (std::int64_t c = 0; c < inputs; ++c)
                            for (std::int64_t r = 0; r < t.kernel[0]; ++r) {
                                const std::int64_t h = row * t.stride[0] + r * t.dilation[0] - t.padding[0][0];
                                if (h < 0 || h >= t.h) continue;
                                for (std::int64_t s = 0; s < t.kernel[1]; ++s) {
                                    const std::int64_t w = column * t.stride[1] + s * t.dilation[1] - t.padding[1][0];
                                    if (w < 0 || w >= t.w) continue;
                                    const std::int64_t channel = k / outputs * inputs + c;
                                    const auto in = std::size_t(((n * t.c + channel) * t.h + h) * t.w + w);
                                    const auto tap = std::size_t(((k * inputs + c) * t.kernel[0] + r) * t.kernel[1] + s);
                                    y.add(out, double(x[in]) * weight[tap]);
                                    dx.add(in, double(dy[out]) * weight[tap]);
                                    dweight.add(tap, double(dy[out]) * x[in]);
                                }
                            }
                    }
    }
};

#endif
