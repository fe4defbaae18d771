/* Structures of every size that a caller's version may have, and missing ones. */
#include "test.h"

static Handles live;
static Small small;

/* Calls that read or write one structure. */
static grilly_status use_context_desc(void *desc) {
    grilly_context *context = NULL;
    const grilly_status status = grilly_context_create(desc, &context);
    CHECK((status == GRILLY_OK) == (context != NULL), "a context and its status disagree");
    OK(grilly_context_destroy(context));
    return status;
}
static grilly_status use_conv2d_desc(void *desc) {
    grilly_conv2d *conv = NULL;
    const grilly_status status = grilly_conv2d_create(live.context, desc, &conv);
    CHECK((status == GRILLY_OK) == (conv != NULL), "a convolution and its status disagree");
    OK(grilly_conv2d_destroy(conv));
    return status;
}
static grilly_status use_tensor(void *tensor) {
    grilly_conv2d_io io = small.io;
    io.x = tensor;
    return grilly_conv2d_forward(live.conv, &io);
}
static grilly_status use_weight_tensor(void *tensor) {
    grilly_weights *weights = NULL;
    const grilly_status status = grilly_weights_create(live.conv, tensor, &weights);
    OK(grilly_weights_destroy(weights));
    return status;
}
static grilly_status use_io_forward(void *io) { return grilly_conv2d_forward(live.conv, io); }
static grilly_status use_io_backward(void *io) { return grilly_conv2d_backward(live.conv, io); }
static grilly_status use_io_plan(void *io) { return grilly_plan_run(live.plan, io, 0, 1); }
static grilly_status use_device_info(void *info) { return grilly_device_info_get(0, info); }
static grilly_status use_context_info(void *info) { return grilly_context_device_info(live.context, info); }
static grilly_status use_stats(void *stats) { return grilly_context_stats(live.context, stats); }
static grilly_status use_memory(void *memory) { return grilly_conv2d_memory(live.conv, X_SHAPE, memory); }
static grilly_status use_plan_info(void *info) { return grilly_plan_info_get(live.plan, info); }

typedef enum { READ, WRITTEN } Direction;

/* Room for any structure and the tail of one from the future. */
enum { ROOM = 4096, TAIL = 64 };
typedef union {
    unsigned char bytes[ROOM];
    size_t struct_size;
    grilly_device_info largest;
} Structure;

static void check_sizes(const char *name, Direction direction, const void *good, size_t size,
                        grilly_status (*use)(void *)) {
    static const size_t wrong[] = {0, 1, 7, 8, 12, (size_t)-1, (size_t)1 << 32, (size_t)1 << 63};
    Structure structure;
#define TRY(wanted, what, setup)                                                                              \
    do {                                                                                                      \
        memset(&structure, 0, sizeof structure);                                                              \
        memcpy(&structure, good, size);                                                                       \
        setup;                                                                                                \
        const grilly_status got = use(&structure);                                                            \
        CHECK(got == (wanted), "%s %s: got %s (%s)", name, what, grilly_status_string(got),                   \
              grilly_last_error_message());                                                                   \
        CHECK(got == GRILLY_OK || strstr(grilly_last_error_message(), "struct_size") != NULL,                 \
              "%s %s: the message is '%s'", name, what, grilly_last_error_message());                         \
    } while (0)

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        TRY(GRILLY_ERROR_INVALID_ARGUMENT, "of a wrong size", structure.struct_size = wrong[i]);
    }
    TRY(GRILLY_ERROR_INVALID_ARGUMENT, "one byte short", structure.struct_size = size - 1);
    TRY(GRILLY_OK, "of its own size", structure.struct_size = size);
    TRY(GRILLY_OK, "from the future, its tail zero", structure.struct_size = size + TAIL);
    if (direction == READ) {
        TRY(GRILLY_ERROR_INVALID_ARGUMENT, "from the future, its tail used",
            (structure.struct_size = size + TAIL, structure.bytes[size + TAIL - 1] = 1));
    } else {
        /* The library must not write beyond what it knows. */
        TRY(GRILLY_OK, "from the future, with a guard",
            (structure.struct_size = size + TAIL, memset(structure.bytes + size, 0xa5, TAIL)));
        for (size_t at = size; at < size + TAIL; ++at) {
            CHECK(structure.bytes[at] == 0xa5, "%s: byte %zu was written", name, at);
        }
        CHECK(structure.struct_size == size + TAIL, "%s: struct_size was changed", name);
    }
    const grilly_status got = use(NULL);
    if (use != use_context_desc && use != use_tensor) {
        CHECK(got == GRILLY_ERROR_INVALID_ARGUMENT, "%s NULL: got %s", name, grilly_status_string(got));
        CHECK(grilly_last_error_message()[0] != '\0', "%s NULL: no message", name);
    }
    group(name);
#undef TRY
}

static void check_out_parameters(void) {
    const grilly_conv2d_desc desc = small_desc();
    int64_t shape[4];
    grilly_plan *plan = NULL;
#define NULL_OUT(call) REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, call)
    NULL_OUT(grilly_device_count(NULL));
    NULL_OUT(grilly_device_info_get(0, NULL));
    NULL_OUT(grilly_context_create(NULL, NULL));
    NULL_OUT(grilly_context_device_info(live.context, NULL));
    NULL_OUT(grilly_context_stats(live.context, NULL));
    NULL_OUT(grilly_buffer_create(live.context, 16, NULL));
    grilly_buffer *none = NULL;
    void *data = NULL;
    NULL_OUT(grilly_buffer_create_host(live.context, 16, NULL, &data));
    NULL_OUT(grilly_buffer_create_host(live.context, 16, &none, NULL));
    NULL_OUT(grilly_buffer_create_host(live.context, 0, &none, &data));
    CHECK(none == NULL && data == NULL, "written after an error");
    NULL_OUT(grilly_buffer_size(live.buffer, NULL));
    NULL_OUT(grilly_buffer_write(live.buffer, 0, NULL, 16));
    NULL_OUT(grilly_buffer_read(live.buffer, 0, NULL, 16));
    NULL_OUT(grilly_conv2d_create(live.context, &desc, NULL));
    NULL_OUT(grilly_conv2d_create(live.context, NULL, NULL));
    NULL_OUT(grilly_conv2d_output_shape(live.conv, X_SHAPE, NULL));
    NULL_OUT(grilly_conv2d_output_shape(live.conv, NULL, shape));
    NULL_OUT(grilly_conv2d_forward(live.conv, NULL));
    NULL_OUT(grilly_conv2d_backward(live.conv, NULL));
    NULL_OUT(grilly_conv2d_init_parameters(live.conv, 1, NULL, small.bias));
    NULL_OUT(grilly_conv2d_memory(live.conv, X_SHAPE, NULL));
    NULL_OUT(grilly_conv2d_plan(live.conv, GRILLY_PASS_FORWARD, X_SHAPE, 0, NULL));
    NULL_OUT(grilly_conv2d_plan(live.conv, GRILLY_PASS_FORWARD, NULL, 0, &plan));
    NULL_OUT(grilly_plan_info_get(live.plan, NULL));
    NULL_OUT(grilly_plan_run(live.plan, NULL, 0, 1));
    NULL_OUT(grilly_weights_create(live.conv, &small.tensor_weight, NULL));
    NULL_OUT(grilly_weights_create(live.conv, NULL, NULL));
#undef NULL_OUT
    group("missing out-parameters and structures");

    /* These return nothing, so all they can do is nothing. */
    grilly_context_desc_init(NULL, 0);
    grilly_device_info_init(NULL, 0);
    grilly_stats_init(NULL, 0);
    grilly_conv2d_desc_init(NULL, 0);
    grilly_conv2d_io_init(NULL, 0);
    grilly_memory_init(NULL, 0);
    grilly_plan_info_init(NULL, 0);
    grilly_tensor_init_host(NULL, 0, small.x, sizeof small.x, 4, X_SHAPE);
    grilly_tensor_init_device(NULL, 0, live.buffer, 0, 4, X_SHAPE);
    grilly_tensor tensor;
    grilly_tensor_init_host(&tensor, sizeof tensor, small.x, sizeof small.x, 4, NULL);
    CHECK(tensor.struct_size == sizeof tensor && tensor.rank == 4, "a tensor without sizes is not initialised");
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, use_tensor(&tensor));
    group("initialising nothing");
}

int main(int argc, char **argv) {
    live = open_handles(open_context(device_argument(argc, argv)));
    small_init(&small);

    grilly_context_desc context_desc;
    grilly_context_desc_init(&context_desc, sizeof context_desc);
    context_desc.device = GRILLY_DEVICE_CPU;
    const grilly_conv2d_desc conv2d_desc = small_desc();
    grilly_device_info device_info;
    grilly_stats stats;
    grilly_memory memory;
    grilly_plan_info plan_info;
    grilly_device_info_init(&device_info, sizeof device_info);
    grilly_stats_init(&stats, sizeof stats);
    grilly_memory_init(&memory, sizeof memory);
    grilly_plan_info_init(&plan_info, sizeof plan_info);
    check_sizes("grilly_context_desc", READ, &context_desc, sizeof context_desc, use_context_desc);
    check_sizes("grilly_conv2d_desc", READ, &conv2d_desc, sizeof conv2d_desc, use_conv2d_desc);
    check_sizes("grilly_tensor", READ, &small.tensor_x, sizeof(grilly_tensor), use_tensor);
    check_sizes("grilly_tensor of weights", READ, &small.tensor_weight, sizeof(grilly_tensor), use_weight_tensor);
    check_sizes("grilly_conv2d_io forward", READ, &small.io, sizeof(grilly_conv2d_io), use_io_forward);
    check_sizes("grilly_conv2d_io backward", READ, &small.io, sizeof(grilly_conv2d_io), use_io_backward);
    check_sizes("grilly_conv2d_io of a plan", READ, &small.io, sizeof(grilly_conv2d_io), use_io_plan);
    check_sizes("grilly_device_info", WRITTEN, &device_info, sizeof device_info, use_device_info);
    check_sizes("grilly_device_info of a context", WRITTEN, &device_info, sizeof device_info, use_context_info);
    check_sizes("grilly_stats", WRITTEN, &stats, sizeof stats, use_stats);
    check_sizes("grilly_memory", WRITTEN, &memory, sizeof memory, use_memory);
    check_sizes("grilly_plan_info", WRITTEN, &plan_info, sizeof plan_info, use_plan_info);
    check_out_parameters();

    close_children(&live);
    OK(grilly_context_destroy(live.context));
    group("the end");
    return finish();
}
