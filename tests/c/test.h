/* What the C test programs share. Each takes a device ("cpu" or an index), prints "ok NAME" for every group of checks
 * that held, and exits with 1 if any did not. */
#ifndef GRILLY_TEST_H
#define GRILLY_TEST_H

#include <grilly.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;       /* of the whole program */
static int group_failures; /* since the last group ended */
static int group_checks;

/* Counts a check; a failed one is printed with the line it stands on. */
#define CHECK(held, ...) check_at((held) != 0, __FILE__, __LINE__, __VA_ARGS__)

/* A call that must succeed. */
#define OK(call) expect_at((call), GRILLY_OK, __FILE__, __LINE__, #call)

/* A call that must fail with `status`, and say why. */
#define REFUSED(status, call) expect_at((call), (status), __FILE__, __LINE__, #call)

static inline int fail_at(const char *file, int line) {
    ++failures;
    ++group_failures;
    return fprintf(stderr, "FAILED %s:%d: ", file, line);
}

#define check_at(held, file, line, ...)                                                       \
    do {                                                                                      \
        ++group_checks;                                                                       \
        if (!(held)) {                                                                        \
            fail_at(file, line);                                                              \
            fprintf(stderr, __VA_ARGS__);                                                     \
            fputc('\n', stderr);                                                              \
        }                                                                                     \
    } while (0)

static inline void expect_at(grilly_status got, grilly_status want, const char *file, int line, const char *what) {
    const char *message = got == GRILLY_OK ? "" : grilly_last_error_message();
    check_at(got == want, file, line, "%s: got %s (%s), want %s", what, grilly_status_string(got), message,
             grilly_status_string(want));
    check_at(got == GRILLY_OK || message[0] != '\0', file, line, "%s: failed without a message", what);
}

/* Ends a group of checks. One that checked nothing has failed. */
static inline void group(const char *name) {
    CHECK(group_checks > 0, "%s checked nothing", name);
    if (group_failures == 0) printf("ok %s (%d checks)\n", name, group_checks);
    fflush(stdout);
    group_failures = group_checks = 0;
}

static inline int finish(void) {
    if (failures != 0) fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}

/* The device that the program was started with. */
static inline int32_t device_argument(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s cpu|INDEX\n", argv[0]);
        exit(2);
    }
    return strcmp(argv[1], "cpu") == 0 ? GRILLY_DEVICE_CPU : (int32_t)strtol(argv[1], NULL, 10);
}

static inline grilly_context *open_context(int32_t device) {
    grilly_context_desc desc;
    grilly_context *context = NULL;
    grilly_context_desc_init(&desc, sizeof desc);
    desc.device = device;
    if (grilly_context_create(&desc, &context) != GRILLY_OK) {
        fprintf(stderr, "FAILED: no context on device %d: %s\n", (int)device, grilly_last_error_message());
        exit(1);
    }
    return context;
}

/* The convolution of most tests, 3x3 with padding: x [2, 4, 5, 6], weight [6, 4, 3, 3], y [2, 6, 5, 6]. */
enum { X_SIZE = 2 * 4 * 5 * 6, WEIGHT_SIZE = 6 * 4 * 3 * 3, BIAS_SIZE = 6, Y_SIZE = 2 * 6 * 5 * 6 };
static const int64_t X_SHAPE[4] = {2, 4, 5, 6};
static const int64_t WEIGHT_SHAPE[4] = {6, 4, 3, 3};
static const int64_t BIAS_SHAPE[1] = {6};
static const int64_t Y_SHAPE[4] = {2, 6, 5, 6};

static inline grilly_conv2d_desc small_desc(void) {
    grilly_conv2d_desc desc;
    grilly_conv2d_desc_init(&desc, sizeof desc);
    desc.in_channels = 4;
    desc.out_channels = 6;
    desc.kernel[0] = desc.kernel[1] = 3;
    desc.padding_begin[0] = desc.padding_begin[1] = 1;
    desc.padding_end[0] = desc.padding_end[1] = 1;
    return desc;
}

/* Every tensor of its calls, in host memory, and the structure that names them all. */
typedef struct {
    float x[X_SIZE], weight[WEIGHT_SIZE], bias[BIAS_SIZE], y[Y_SIZE];
    float dy[Y_SIZE], dx[X_SIZE], dweight[WEIGHT_SIZE], dbias[BIAS_SIZE];
    grilly_tensor tensor_x, tensor_weight, tensor_bias, tensor_y;
    grilly_tensor tensor_dy, tensor_dx, tensor_dweight, tensor_dbias;
    grilly_conv2d_io io;
} Small;

static inline void small_integers(float *values, int count, int seed) {
    /* Sums of small integers are exact in float32, so results can be compared with ==. */
    for (int i = 0; i < count; ++i) values[i] = (float)((i * 7 + seed) % 9 - 4);
}

static inline void small_init(Small *small) {
    memset(small, 0, sizeof *small);
    small_integers(small->x, X_SIZE, 1);
    small_integers(small->weight, WEIGHT_SIZE, 2);
    small_integers(small->bias, BIAS_SIZE, 3);
    small_integers(small->dy, Y_SIZE, 4);
    grilly_conv2d_io_init(&small->io, sizeof small->io);
#define SMALL_TENSOR(name, rank, sizes)                                                               \
    grilly_tensor_init_host(&small->tensor_##name, sizeof(grilly_tensor), small->name,                \
                            sizeof small->name, rank, sizes);                                         \
    small->io.name = &small->tensor_##name
    SMALL_TENSOR(x, 4, X_SHAPE);
    SMALL_TENSOR(weight, 4, WEIGHT_SHAPE);
    SMALL_TENSOR(bias, 1, BIAS_SHAPE);
    SMALL_TENSOR(y, 4, Y_SHAPE);
    SMALL_TENSOR(dy, 4, Y_SHAPE);
    SMALL_TENSOR(dx, 4, X_SHAPE);
    SMALL_TENSOR(dweight, 4, WEIGHT_SHAPE);
    SMALL_TENSOR(dbias, 1, BIAS_SHAPE);
#undef SMALL_TENSOR
}

/* One live handle of every type, of the small convolution. */
typedef struct {
    grilly_context *context;
    grilly_buffer *buffer;
    grilly_conv2d *conv;
    grilly_weights *weights;
    grilly_plan *plan;
} Handles;

static inline Handles open_handles(grilly_context *context) {
    Handles all = {context, NULL, NULL, NULL, NULL};
    const grilly_conv2d_desc desc = small_desc();
    Small small;
    small_init(&small);
    OK(grilly_buffer_create(context, 4096, &all.buffer));
    OK(grilly_conv2d_create(context, &desc, &all.conv));
    OK(grilly_weights_create(all.conv, &small.tensor_weight, &all.weights));
    OK(grilly_conv2d_plan(all.conv, GRILLY_PASS_FORWARD, X_SHAPE, GRILLY_WITH_BIAS, &all.plan));
    return all;
}

/* All but the context. */
static inline void close_children(const Handles *all) {
    OK(grilly_plan_destroy(all->plan));
    OK(grilly_weights_destroy(all->weights));
    OK(grilly_conv2d_destroy(all->conv));
    OK(grilly_buffer_destroy(all->buffer));
}

#endif
