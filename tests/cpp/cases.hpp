// Reads tests/cases.json: not JSON in general, but that file's format, in which every case is one line.
#ifndef GRILLY_TESTS_CASES_HPP
#define GRILLY_TESTS_CASES_HPP

#include <grilly.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

struct Case {
    std::string name;
    std::int64_t n, c, h, w, k;
    std::int64_t kernel[2], stride[2], dilation[2];
    std::int64_t padding[2][2];  // [axis][begin, end]
    std::int64_t groups;
    bool bias;
    std::int32_t padding_mode;  // a GRILLY_PADDING_*
    bool transposed;
    std::int64_t output_padding[2];
    std::int64_t in_channels;  // the convolution's, which `c` of a wrong input may differ from
    std::string status;        // of a wrong case: the error's name without GRILLY_ERROR_
    std::string message;       // and what the message must contain
};

namespace cases_detail {

/// What follows `"key": ` in the line; nullptr if the line lacks it.
inline const char *value(const std::string &line, const char *key) {
    const std::string quoted = std::string("\"") + key + "\": ";
    const std::size_t at = line.find(quoted);
    return at == std::string::npos ? nullptr : line.c_str() + at + quoted.size();
}

[[noreturn]] inline void broken(const std::string &line, const char *key) {
    std::fprintf(stderr, "FAILED: no usable \"%s\" in the case %s\n", key, line.c_str());
    std::exit(1);
}

/// `count` integers, however they are nested.
inline void integers(const std::string &line, const char *key, std::int64_t *out, int count) {
    const char *at = value(line, key);
    if (at == nullptr) broken(line, key);
    for (int i = 0; i < count; ++i) {
        while (*at == '[' || *at == ']' || *at == ',' || *at == ' ') ++at;
        char *end = nullptr;
        out[i] = std::strtoll(at, &end, 10);
        if (end == at) broken(line, key);
        at = end;
    }
}

/// A string without escapes; empty if the line lacks it.
inline std::string text(const std::string &line, const char *key) {
    const char *at = value(line, key);
    if (at == nullptr) return "";
    const std::string rest(at + 1);
    const std::size_t end = rest.find('"');
    if (*at != '"' || end == std::string::npos || rest.find('\\') < end) broken(line, key);
    return rest.substr(0, end);
}

inline bool flag(const std::string &line, const char *key) {
    const char *at = value(line, key);
    return at != nullptr && *at == 't';
}

inline std::int32_t padding_mode(const std::string &name) {
    if (name == "reflect") return GRILLY_PADDING_REFLECT;
    if (name == "replicate") return GRILLY_PADDING_REPLICATE;
    if (name == "circular") return GRILLY_PADDING_CIRCULAR;
    if (!name.empty()) broken(name, "padding_mode");
    return GRILLY_PADDING_ZEROS;
}

}  // namespace cases_detail

inline std::vector<Case> read_cases(const char *path) {
    using namespace cases_detail;
    std::vector<Case> cases;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (line.compare(0, 8, "{\"name\":") != 0) continue;
        Case one{};
        one.name = text(line, "name");
        integers(line, "n", &one.n, 1);
        integers(line, "c", &one.c, 1);
        integers(line, "h", &one.h, 1);
        integers(line, "w", &one.w, 1);
        integers(line, "k", &one.k, 1);
        integers(line, "kernel", one.kernel, 2);
        integers(line, "stride", one.stride, 2);
        integers(line, "padding", one.padding[0], 4);
        integers(line, "dilation", one.dilation, 2);
        integers(line, "groups", &one.groups, 1);
        if (value(line, "bias") == nullptr) broken(line, "bias");
        one.bias = flag(line, "bias");
        one.padding_mode = padding_mode(text(line, "padding_mode"));
        one.transposed = flag(line, "transposed");
        if (value(line, "output_padding") != nullptr) integers(line, "output_padding", one.output_padding, 2);
        one.in_channels = one.c;
        if (value(line, "in_channels") != nullptr) integers(line, "in_channels", &one.in_channels, 1);
        one.status = text(line, "status");
        one.message = text(line, "message");
        cases.push_back(one);
    }
    return cases;
}

#endif
