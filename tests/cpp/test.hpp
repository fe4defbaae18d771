// What the C++ test programs share. They print "ok NAME" for every group of checks that held, and exit with 1 if any
// did not.
#ifndef GRILLY_TESTS_TEST_HPP
#define GRILLY_TESTS_TEST_HPP

#include <grilly.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

inline int failures = 0;

#define CHECK(held, ...)                                                \
    do {                                                                \
        if (!(held)) {                                                  \
            ++failures;                                                 \
            std::fprintf(stderr, "FAILED %s:%d: ", __FILE__, __LINE__); \
            std::fprintf(stderr, __VA_ARGS__);                          \
            std::fputc('\n', stderr);                                   \
        }                                                               \
    } while (0)

/// Ends a group of checks over `count` cases, which must not be none.
inline void group(const char *name, std::size_t count) {
    static int before = 0;
    CHECK(count > 0, "%s: there were no cases", name);
    if (failures == before) std::printf("ok %s (%zu cases)\n", name, count);
    std::fflush(stdout);
    before = failures;
}

/// Uniform in [-1, 1), the same everywhere (splitmix64).
struct Random {
    std::uint64_t state;
    float next() {
        state += 0x9e3779b97f4a7c15u;
        std::uint64_t z = state;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return static_cast<float>(static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0);
    }
    grilly::Array array(const grilly::Shape &shape) {
        grilly::Array made(shape);
        for (float &value : made.data) value = next();
        return made;
    }
};

template <class Call>
void check_throws(const char *what, const char *part, Call call) {
    try {
        call();
        CHECK(false, "%s: nothing was thrown", what);
    } catch (const grilly::Error &error) {
        CHECK(error.status() == GRILLY_ERROR_INVALID_ARGUMENT && std::strstr(error.what(), part) != nullptr,
              "%s: got %s: %s", what, grilly_status_string(error.status()), error.what());
    }
}

inline int usage(const char *program, const char *arguments) {
    std::fprintf(stderr, "usage: %s %s\n", program, arguments);
    return 2;
}

/// "cpu" or an index, as a program's argument names a device.
inline std::int32_t device_argument(const char *text) {
    return std::strcmp(text, "cpu") == 0 ? GRILLY_DEVICE_CPU : std::atoi(text);
}

#endif
