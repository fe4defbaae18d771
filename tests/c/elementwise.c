/* Element-wise operations from C: what they compute, and what they refuse. */
#include "test.h"

enum { ROWS = 3, COLUMNS = 4, SIZE = ROWS * COLUMNS };
static const int64_t SHAPE[2] = {ROWS, COLUMNS};
static const int64_t ROW_SHAPE[1] = {COLUMNS};

static grilly_context *context, *other_context;
static grilly_buffer *buffer, *other_buffer;
static grilly_tensor x, y, row, result; /* one behind the other in the buffer */
static const float POISON = 12345;

static grilly_tensor in_buffer(const grilly_buffer *memory, uint64_t element, int32_t rank, const int64_t *shape) {
    grilly_tensor tensor;
    grilly_tensor_init_device(&tensor, sizeof tensor, memory, element * sizeof(float), rank, shape);
    return tensor;
}

/* The values that x, y and row begin with; a poisoned result. */
static float x_at(int i) { return (float)(i - 5); }
static float y_at(int i) { return (float)(2 * i + 1); }
static float row_at(int i) { return (float)(10 * (i % COLUMNS)); }

static void reset(void) {
    float values[3 * SIZE + COLUMNS];
    for (int i = 0; i < SIZE; ++i) {
        values[i] = x_at(i);
        values[SIZE + i] = y_at(i);
        values[2 * SIZE + COLUMNS + i] = POISON;
    }
    for (int i = 0; i < COLUMNS; ++i) values[2 * SIZE + i] = row_at(i);
    OK(grilly_buffer_write(buffer, 0, values, sizeof values));
}

static void compare(const grilly_tensor *tensor, const char *name, float (*want)(int)) {
    float got[SIZE];
    OK(grilly_buffer_read(buffer, tensor->offset, got, sizeof got));
    for (int i = 0; i < SIZE; ++i) CHECK(got[i] == want(i), "%s: element %d is %g, not %g", name, i, got[i], want(i));
}

static float sum(int i) { return x_at(i) + 0.5f * y_at(i); }
static float half_as_much(int i) { return x_at(i) * 0.5f; }
static float one_less(int i) { return 1 - x_at(i); }
static float with_row(int i) { return x_at(i) - row_at(i); }
static float positive(int i) { return x_at(i) > 0 ? x_at(i) : 0; }
static float where_positive(int i) { return x_at(i) > 0 ? y_at(i) : 0; }
static float seven(int i) { return i < SIZE ? 7.0f : 0; }

static void check_values(void) {
    static const struct {
        const char *name;
        int32_t op;
        const grilly_tensor *a, *b;
        float alpha;
        float (*want)(int);
    } table[] = {
        {"add", GRILLY_OP_ADD, &x, &y, 0.5f, sum},
        {"scale", GRILLY_OP_MULTIPLY, &x, NULL, 0.5f, half_as_much},
        {"subtract from a number", GRILLY_OP_SUBTRACT, NULL, &x, 1, one_less},
        {"subtract a row", GRILLY_OP_SUBTRACT, &x, &row, 1, with_row},
        {"relu", GRILLY_OP_MAXIMUM, &x, NULL, 0, positive},
        {"relu backward", GRILLY_OP_RELU_BACKWARD, &y, &x, 1, where_positive},
        {"copy", GRILLY_OP_COPY, &y, NULL, 1, y_at},
        {"fill", GRILLY_OP_COPY, NULL, NULL, 7, seven},
    };
    for (size_t at = 0; at < sizeof table / sizeof *table; ++at) {
        reset();
        OK(grilly_elementwise(context, table[at].op, table[at].a, table[at].b, table[at].alpha, &result));
        compare(&result, table[at].name, table[at].want);
        compare(&x, table[at].name, x_at);
    }
    reset();
    OK(grilly_elementwise(context, GRILLY_OP_ADD, &x, &y, 0.5f, &x));
    compare(&x, "add in place", sum);
    compare(&y, "add in place", y_at);
    group("values");
}

static void refused(const char *message, grilly_status status, int32_t op, const grilly_tensor *a,
                    const grilly_tensor *b, const grilly_tensor *out) {
    REFUSED(status, grilly_elementwise(context, op, a, b, 1, out));
    CHECK(strstr(grilly_last_error_message(), message) != NULL, "'%s' does not say '%s'", grilly_last_error_message(),
          message);
}

static void check_misuse(void) {
    const grilly_status invalid = GRILLY_ERROR_INVALID_ARGUMENT;
    float host_memory[SIZE] = {0};
    grilly_tensor host, strided = x, shifted = x, foreign = in_buffer(other_buffer, 0, 2, SHAPE), rank_0 = x;
    grilly_tensor stale = x;
    grilly_buffer *destroyed = NULL;
    grilly_tensor_init_host(&host, sizeof host, host_memory, sizeof host_memory, 2, SHAPE);
    strided.strides[1] = 2;
    shifted.offset += sizeof(float);
    rank_0.rank = 0;
    OK(grilly_buffer_create_uninitialized(context, 64, &destroyed));
    OK(grilly_buffer_destroy(destroyed));
    stale.buffer = destroyed;

    reset();
    refused("out is NULL", invalid, GRILLY_OP_ADD, &x, &y, NULL);
    refused("op is 8", invalid, 8, &x, &y, &result);
    refused("op is -1", invalid, -1, &x, &y, &result);
    refused("a and b are both absent", invalid, GRILLY_OP_ADD, NULL, NULL, &result);
    refused("b is given", invalid, GRILLY_OP_COPY, &x, &y, &result);
    refused("a lies in host memory", invalid, GRILLY_OP_ADD, &host, &y, &result);
    refused("b lies in host memory", invalid, GRILLY_OP_ADD, &x, &host, &result);
    refused("out lies in host memory", invalid, GRILLY_OP_ADD, &x, &y, &host);
    refused("a->strides", invalid, GRILLY_OP_ADD, &strided, &y, &result);
    refused("b->rank", invalid, GRILLY_OP_ADD, &x, &rank_0, &result);
    refused("does not broadcast", invalid, GRILLY_OP_ADD, &x, &y, &row);
    refused("out overlaps a", invalid, GRILLY_OP_ADD, &shifted, &y, &x);
    refused("another context", invalid, GRILLY_OP_ADD, &x, &foreign, &result);
    refused("another context", invalid, GRILLY_OP_ADD, &x, &y, &foreign);
    refused("", GRILLY_ERROR_INVALID_HANDLE, GRILLY_OP_ADD, &stale, &y, &result);
    REFUSED(GRILLY_ERROR_INVALID_HANDLE, grilly_elementwise(NULL, GRILLY_OP_ADD, &x, &y, 1, &result));
    REFUSED(GRILLY_ERROR_INVALID_HANDLE,
            grilly_elementwise((grilly_context *)buffer, GRILLY_OP_ADD, &x, &y, 1, &result));
    compare(&x, "after refusals", x_at);
    compare(&y, "after refusals", y_at);
    group("misuse");
}

static void check_uninitialized_buffers(void) {
    grilly_buffer *memory = NULL;
    const float want = 2.5f;
    float got = 0;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_create_uninitialized(context, 0, &memory));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_create_uninitialized(context, 4, NULL));
    REFUSED(GRILLY_ERROR_INVALID_HANDLE, grilly_buffer_create_uninitialized(NULL, 4, &memory));
    OK(grilly_buffer_create_uninitialized(context, 4, &memory));
    OK(grilly_buffer_write(memory, 0, &want, sizeof want));
    OK(grilly_buffer_read(memory, 0, &got, sizeof got));
    CHECK(got == want, "wrote %g and read %g", want, got);
    OK(grilly_buffer_destroy(memory));
    group("uninitialized buffers");
}

int main(int argc, char **argv) {
    const int32_t device = device_argument(argc, argv);
    context = open_context(device);
    other_context = open_context(device);
    OK(grilly_buffer_create(context, 1024, &buffer));
    OK(grilly_buffer_create(other_context, 1024, &other_buffer));
    x = in_buffer(buffer, 0, 2, SHAPE);
    y = in_buffer(buffer, SIZE, 2, SHAPE);
    row = in_buffer(buffer, 2 * SIZE, 1, ROW_SHAPE);
    result = in_buffer(buffer, 2 * SIZE + COLUMNS, 2, SHAPE);
    check_values();
    check_misuse();
    check_uninitialized_buffers();
    OK(grilly_buffer_destroy(other_buffer));
    OK(grilly_buffer_destroy(buffer));
    OK(grilly_context_destroy(other_context));
    OK(grilly_context_destroy(context));
    return finish();
}
