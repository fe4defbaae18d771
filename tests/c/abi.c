/* The header, and the functions that need no device: versions, names, initial values, sizes of the structures. */
#include "test.h"

#include <stddef.h>

static void check_names(void) {
    static const struct {
        grilly_status status;
        const char *name;
    } table[] = {
#define ROW(status) {status, #status}
        ROW(GRILLY_OK), ROW(GRILLY_ERROR_INVALID_ARGUMENT), ROW(GRILLY_ERROR_INVALID_HANDLE),
        ROW(GRILLY_ERROR_UNSUPPORTED), ROW(GRILLY_ERROR_OUT_OF_HOST_MEMORY), ROW(GRILLY_ERROR_OUT_OF_DEVICE_MEMORY),
        ROW(GRILLY_ERROR_DEVICE_LOST), ROW(GRILLY_ERROR_NO_VULKAN), ROW(GRILLY_ERROR_NO_DEVICE),
        ROW(GRILLY_ERROR_FORKED), ROW(GRILLY_ERROR_INTERNAL), ROW(GRILLY_ERROR_TIMEOUT),
#undef ROW
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; ++i) {
        CHECK(table[i].status == (grilly_status)i, "%s is %d", table[i].name, (int)table[i].status);
        CHECK(strcmp(grilly_status_string(table[i].status), table[i].name) == 0, "%s is called %s", table[i].name,
              grilly_status_string(table[i].status));
    }
    const grilly_status unknown[] = {-1, 12, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; ++i) {
        CHECK(strcmp(grilly_status_string(unknown[i]), "unknown grilly_status") == 0, "%d has the name %s",
              (int)unknown[i], grilly_status_string(unknown[i]));
    }
    int major = -1, minor = -1, patch = -1;
    CHECK(sscanf(grilly_version_string(), "%d.%d.%d", &major, &minor, &patch) == 3, "the version is %s",
          grilly_version_string());
    CHECK(grilly_last_error_message()[0] == '\0', "there is a message before the first error");
    group("names");
}

/* A structure never shrinks and its fields never move: programs built against 0.1 run with what follows. */
static void check_layout(void) {
#define FIELD(type, field, at) CHECK(offsetof(type, field) == (at), #type "." #field " is at %zu", offsetof(type, field))
    FIELD(grilly_tensor, data, 8);
    FIELD(grilly_tensor, bytes, 16);
    FIELD(grilly_tensor, buffer, 24);
    FIELD(grilly_tensor, offset, 32);
    FIELD(grilly_tensor, dtype, 40);
    FIELD(grilly_tensor, rank, 44);
    FIELD(grilly_tensor, shape, 48);
    FIELD(grilly_tensor, strides, 80);
    FIELD(grilly_context_desc, device, 8);
    FIELD(grilly_context_desc, memory_budget, 24);
    FIELD(grilly_context_desc, log_user, 40);
    FIELD(grilly_conv2d_desc, in_channels, 8);
    FIELD(grilly_conv2d_desc, groups, 104);
    FIELD(grilly_conv2d_desc, output_padding, 112);
    FIELD(grilly_conv2d_desc, precision, 128);
    FIELD(grilly_conv2d_desc, transposed, 136);
    FIELD(grilly_conv2d_io, x, 8);
    FIELD(grilly_conv2d_io, dbias, 64);
    FIELD(grilly_conv2d_io, prepared, 72);
    FIELD(grilly_conv2d_io, flags, 80);
    FIELD(grilly_device_info, name, 40);
    FIELD(grilly_device_info, note, 552);
    FIELD(grilly_stats, device_nanoseconds, 88);
    FIELD(grilly_stats, host_bytes_held, 96);
    FIELD(grilly_memory, backward_weight_workspace, 56);
    FIELD(grilly_plan_info, seconds, 24);
#undef FIELD
    group("layout of the structures");
}

enum { TAIL = 24, BEHIND = 8 };

/* A newer caller's structure is longer: its unknown tail becomes zero, and nothing behind it is written. */
static void check_longer(const char *type, const void *known, size_t size, const unsigned char *longer) {
    size_t says;
    memcpy(&says, longer, sizeof says);
    CHECK(says == size + TAIL, "%s of a newer caller says it has %zu bytes", type, says);
    CHECK(memcmp(longer + sizeof says, (const char *)known + sizeof says, size - sizeof says) == 0,
          "%s of a newer caller", type);
    for (size_t at = size; at < size + TAIL; ++at) CHECK(longer[at] == 0, "%s: byte %zu is not zero", type, at);
    for (size_t at = size + TAIL; at < size + TAIL + BEHIND; ++at) {
        CHECK(longer[at] == 0xa5, "%s: byte %zu is behind the structure, and was written", type, at);
    }
}

static void check_initial_values(void) {
#define INITIAL(type, init)                                                                    \
    type value;                                                                                \
    memset(&value, 0xa5, sizeof value);                                                        \
    init(&value, sizeof value);                                                                \
    CHECK(value.struct_size == sizeof value, #type " says it has %zu bytes", value.struct_size); \
    union {                                                                                    \
        type value;                                                                            \
        unsigned char bytes[sizeof(type) + TAIL + BEHIND];                                     \
    } other;                                                                                   \
    memset(&other, 0xa5, sizeof other);                                                        \
    init(&other.value, sizeof value + TAIL);                                                   \
    check_longer(#type, &value, sizeof value, other.bytes);                                    \
    memset(&other, 0xa5, sizeof other);                                                        \
    init(&other.value, sizeof(size_t));                                                        \
    CHECK(other.bytes[0] == 0xa5, "%s never had %zu bytes, and was written", #type, sizeof(size_t))
    {
        INITIAL(grilly_context_desc, grilly_context_desc_init);
        CHECK(value.device == GRILLY_DEVICE_AUTO && value.log == NULL && value.memory_budget == 0, "context_desc");
    }
    {
        INITIAL(grilly_conv2d_desc, grilly_conv2d_desc_init);
        CHECK(value.stride[0] == 1 && value.stride[1] == 1 && value.dilation[0] == 1 && value.dilation[1] == 1 &&
                  value.groups == 1 && value.padding_begin[0] == 0 && value.padding_end[1] == 0 &&
                  value.precision == GRILLY_PRECISION_FP32 && value.in_channels == 0,
              "conv2d_desc");
    }
    {
        INITIAL(grilly_conv2d_io, grilly_conv2d_io_init);
        CHECK(value.x == NULL && value.dbias == NULL && value.prepared == NULL && value.flags == 0, "conv2d_io");
    }
    {
        INITIAL(grilly_device_info, grilly_device_info_init);
        CHECK(value.name[0] == '\0', "device_info");
    }
    {
        INITIAL(grilly_stats, grilly_stats_init);
        CHECK(value.blocks_in_use == 0, "stats");
    }
    {
        INITIAL(grilly_memory, grilly_memory_init);
        CHECK(value.weight == 0, "memory");
    }
    {
        INITIAL(grilly_plan_info, grilly_plan_info_init);
        CHECK(value.slices == 0, "plan_info");
    }
#undef INITIAL
    grilly_tensor tensor;
    grilly_tensor_init_host(&tensor, sizeof tensor, NULL, 7, 3, X_SHAPE);
    CHECK(tensor.struct_size == sizeof tensor && tensor.bytes == 7 && tensor.rank == 3 && tensor.dtype == 0 &&
              tensor.shape[0] == 2 && tensor.shape[2] == 5 && tensor.strides[0] == 20 && tensor.strides[1] == 5 &&
              tensor.strides[2] == 1,
          "tensor");
    group("initial values");
}

static void check_devices(int32_t wanted) {
    uint32_t count = 0;
    grilly_device_info info;
    grilly_device_info_init(&info, sizeof info);
    OK(grilly_device_count(&count));
    for (uint32_t index = 0; index < count; ++index) {
        OK(grilly_device_info_get(index, &info));
        CHECK(info.index == index && info.name[0] != '\0', "device %u is called '%s'", index, info.name);
        CHECK((info.kind == GRILLY_DEVICE_KIND_CPU) == (index == count - 1), "the CPU device is not the last");
    }
    grilly_context *context = open_context(wanted);
    OK(grilly_context_device_info(context, &info));
    CHECK(info.index == (wanted == GRILLY_DEVICE_CPU ? count - 1 : (uint32_t)wanted), "opened device %u", info.index);
    CHECK(info.note[0] != '\0', "a context does not say why it has its device");
    OK(grilly_context_destroy(context));
    group("devices");
}

static void check_arithmetic(grilly_context *context) {
    grilly_conv2d *conv = NULL;
    int64_t y[4];
    grilly_memory memory;
    grilly_conv2d_desc desc = small_desc();
    desc.stride[1] = 2;
    desc.groups = 2;
    OK(grilly_conv2d_create(context, &desc, &conv));
    OK(grilly_conv2d_output_shape(conv, X_SHAPE, y));
    CHECK(y[0] == 2 && y[1] == 6 && y[2] == 5 && y[3] == 3, "y is [%d, %d, %d, %d]", (int)y[0], (int)y[1], (int)y[2],
          (int)y[3]);
    grilly_memory_init(&memory, sizeof memory);
    OK(grilly_conv2d_memory(conv, X_SHAPE, &memory));
    CHECK(memory.weight == 6 * 2 * 9 * 4 && memory.bias == 24 && memory.input == X_SIZE * 4 &&
              memory.output == 2 * 6 * 5 * 3 * 4,
          "bytes of the tensors");
    float first[108], second[108], bias[6];
    OK(grilly_conv2d_init_parameters(conv, 7, first, bias));
    OK(grilly_conv2d_init_parameters(conv, 7, second, NULL));
    CHECK(memcmp(first, second, sizeof first) == 0, "the same seed gave other values");
    OK(grilly_conv2d_init_parameters(conv, 8, second, NULL));
    CHECK(memcmp(first, second, sizeof first) != 0, "another seed gave the same values");
    for (int i = 0; i < 108; ++i) CHECK(first[i] * first[i] <= 1.0f / 18, "weight[%d] is %g", i, first[i]);
    OK(grilly_conv2d_destroy(conv));
    OK(grilly_context_destroy(context));
    group("shapes, sizes and initial parameters");
}

int main(int argc, char **argv) {
    const int32_t device = device_argument(argc, argv);
    check_names();
    check_layout();
    check_initial_values();
    check_devices(device);
    check_arithmetic(open_context(device));
    return finish();
}
