/* Wrong values: of descriptors, tensors, plans and devices. And odd ones that must work. */
#include "test.h"

static grilly_context *context;
static grilly_conv2d *conv;
static grilly_buffer *buffer;
static Small good; /* with the results of correct calls */

typedef grilly_conv2d_desc Desc;
static void no_in_channels(Desc *d) { d->in_channels = 0; }
static void negative_in_channels(Desc *d) { d->in_channels = -4; }
static void no_out_channels(Desc *d) { d->out_channels = 0; }
static void huge_out_channels(Desc *d) { d->out_channels = INT64_MAX; }
static void no_kernel(Desc *d) { d->kernel[0] = 0; }
static void negative_kernel(Desc *d) { d->kernel[1] = INT64_MIN; }
static void no_stride(Desc *d) { d->stride[0] = 0; }
static void negative_stride(Desc *d) { d->stride[1] = -1; }
static void no_dilation(Desc *d) { d->dilation[1] = 0; }
static void negative_padding(Desc *d) { d->padding_begin[0] = -1; }
static void negative_padding_end(Desc *d) { d->padding_end[1] = -1; }
static void huge_padding(Desc *d) { d->padding_end[0] = INT64_MAX; }
static void no_groups(Desc *d) { d->groups = 0; }
static void groups_of_in(Desc *d) { d->groups = 3; }
static void groups_of_out(Desc *d) { d->groups = 4; }
static void unknown_precision(Desc *d) { d->precision = 3; }
static void negative_precision(Desc *d) { d->precision = -1; }
static void unknown_padding_mode(Desc *d) { d->padding_mode = 4; }
static void negative_padding_mode(Desc *d) { d->padding_mode = -1; }
static void unknown_transposed(Desc *d) { d->transposed = 2; }
static void negative_output_padding(Desc *d) { d->transposed = 1, d->output_padding[1] = -1; }
static void direct_output_padding(Desc *d) { d->output_padding[0] = 1; }
static void transposed_padding_mode(Desc *d) { d->transposed = 1, d->padding_mode = GRILLY_PADDING_REFLECT; }
static void reserved(Desc *d) { d->reserved = 1; }

static void check_descriptors(void) {
    static const struct {
        void (*spoil)(Desc *);
        const char *message; /* the argument that the message must name */
    } table[] = {
        {no_in_channels, "in_channels"}, {negative_in_channels, "in_channels"}, {no_out_channels, "out_channels"},
        {huge_out_channels, "out_channels"}, {no_kernel, "kernel[0]"}, {negative_kernel, "kernel[1]"},
        {no_stride, "stride[0]"}, {negative_stride, "stride[1]"}, {no_dilation, "dilation[1]"},
        {negative_padding, "padding_begin[0]"}, {negative_padding_end, "padding_end[1]"},
        {huge_padding, "padding_end[0]"}, {no_groups, "groups"}, {groups_of_in, "in_channels"},
        {groups_of_out, "out_channels"}, {unknown_precision, "precision"}, {negative_precision, "precision"},
        {unknown_padding_mode, "padding_mode"}, {negative_padding_mode, "padding_mode"},
        {unknown_transposed, "transposed"}, {negative_output_padding, "output_padding[1]"},
        {direct_output_padding, "output_padding[0]"}, {transposed_padding_mode, "padding_mode"}, {reserved, "reserved"},
    };
    for (size_t row = 0; row < sizeof table / sizeof *table; ++row) {
        grilly_conv2d *none = NULL;
        Desc desc = small_desc();
        table[row].spoil(&desc);
        REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_create(context, &desc, &none));
        CHECK(strstr(grilly_last_error_message(), table[row].message) != NULL, "'%s' does not name %s",
              grilly_last_error_message(), table[row].message);
        CHECK(none == NULL, "row %zu made a convolution", row);
    }
    group("wrong descriptors");
}

/* Each spoils one thing of a correct call. */
static void y_missing(Small *s) { s->io.y = NULL; }
static void x_missing(Small *s) { s->io.x = NULL; }
static void weight_missing(Small *s) { s->io.weight = NULL; }
static void dy_missing(Small *s) { s->io.dy = NULL; }
static void unknown_flag(Small *s) { s->io.flags = 0x80000000u; }
static void reserved_io(Small *s) { s->io.reserved = 1; }
static void dtype_unknown(Small *s) { s->tensor_x.dtype = 1; }
static void rank_0(Small *s) { s->tensor_x.rank = 0; }
static void rank_5(Small *s) { s->tensor_x.rank = 5; }
static void rank_negative(Small *s) { s->tensor_x.rank = INT32_MIN; }
static void rank_3(Small *s) { s->tensor_x.rank = 3; }
static void x_channels(Small *s) { s->tensor_x.shape[1] = 3; }
static void x_negative(Small *s) { s->tensor_x.shape[0] = -2; }
static void x_huge(Small *s) { s->tensor_x.shape[0] = INT64_MAX; }
static void x_short(Small *s) { s->tensor_x.bytes -= 1; }
static void x_offset(Small *s) { s->tensor_x.offset = 4; }
static void x_offset_huge(Small *s) { s->tensor_x.offset = UINT64_MAX; }
static void x_bytes_huge(Small *s) { s->tensor_x.bytes = UINT64_MAX; }
static void x_stride_outside(Small *s) { s->tensor_x.strides[0] *= 2; }
static void x_stride_before(Small *s) { s->tensor_x.strides[3] = -1; }
static void x_stride_huge(Small *s) { s->tensor_x.strides[0] = INT64_MIN; }
static void x_nowhere(Small *s) { s->tensor_x.data = NULL; }
static void x_twice(Small *s) { s->tensor_x.buffer = buffer; }
static void weight_shape(Small *s) { s->tensor_weight.shape[1] = 2; }
static void weight_rank(Small *s) { s->tensor_weight.rank = 1; }
static void bias_size(Small *s) { s->tensor_bias.shape[0] = 5; }
static void dy_shape(Small *s) { s->tensor_dy.shape[3] = 5; }
static void dx_shape(Small *s) { s->tensor_dx.shape[2] = 4; }
static void dweight_shape(Small *s) { s->tensor_dweight.shape[0] = 5; }
static void dbias_size(Small *s) { s->tensor_dbias.shape[0] = 5; }
static void y_shape(Small *s) { s->tensor_y.shape[2] = 4; }
static void y_short(Small *s) { s->tensor_y.bytes -= 4; }
static void y_is_x(Small *s) { s->tensor_y.data = s->x, s->tensor_y.bytes = sizeof *s; }
static void y_over_weight(Small *s) { s->tensor_weight.data = s->y + 1; }
static void y_over_itself(Small *s) { s->tensor_y.strides[0] = 0; }
static void y_rows_overlap(Small *s) { s->tensor_y.strides[2] = 5; }
static void dx_is_dy(Small *s) { s->tensor_dx.data = s->dy; }
static void dx_over_dweight(Small *s) { s->tensor_dweight.data = s->dx; }
static void on_device(grilly_tensor *tensor, uint64_t offset) {
    tensor->data = NULL;
    tensor->buffer = buffer;
    tensor->offset = offset;
}
static void x_device_odd(Small *s) { on_device(&s->tensor_x, 2); }
static void x_device_end(Small *s) { on_device(&s->tensor_x, 4096 - 4); }
static void x_device_far(Small *s) { on_device(&s->tensor_x, UINT64_MAX - 3); }
static void x_device_strided(Small *s) {
    on_device(&s->tensor_x, 0);
    s->tensor_x.strides[3] = 2;
}
static void device_overlap(Small *s) {
    on_device(&s->tensor_x, 0);
    on_device(&s->tensor_y, 64);
}
static void device_gradient_overlap(Small *s) {
    on_device(&s->tensor_dy, 0);
    on_device(&s->tensor_dx, 64);
}

enum { FORWARD = 1, BACKWARD = 2, BOTH = 3 };

static void check_tensors(void) {
    static const struct {
        const char *name;
        void (*spoil)(Small *);
        int calls;
    } table[] = {
#define ROW(spoil, calls) {#spoil, spoil, calls}
        ROW(y_missing, FORWARD), ROW(x_missing, BOTH), ROW(weight_missing, BOTH), ROW(dy_missing, BACKWARD),
        ROW(unknown_flag, BOTH), ROW(reserved_io, BOTH), ROW(dtype_unknown, BOTH), ROW(rank_0, BOTH),
        ROW(rank_5, BOTH), ROW(rank_negative, BOTH), ROW(rank_3, BOTH), ROW(x_channels, BOTH), ROW(x_negative, BOTH),
        ROW(x_huge, BOTH), ROW(x_short, BOTH), ROW(x_offset, BOTH), ROW(x_offset_huge, BOTH), ROW(x_bytes_huge, BOTH),
        ROW(x_stride_outside, BOTH), ROW(x_stride_before, BOTH), ROW(x_stride_huge, BOTH), ROW(x_nowhere, BOTH),
        ROW(x_twice, BOTH), ROW(weight_shape, BOTH), ROW(weight_rank, BOTH), ROW(bias_size, FORWARD),
        ROW(dy_shape, BACKWARD), ROW(dx_shape, BACKWARD), ROW(dweight_shape, BACKWARD), ROW(dbias_size, BACKWARD),
        ROW(y_shape, FORWARD), ROW(y_short, FORWARD), ROW(y_is_x, FORWARD), ROW(y_over_weight, FORWARD),
        ROW(y_over_itself, FORWARD), ROW(y_rows_overlap, FORWARD), ROW(dx_is_dy, BACKWARD),
        ROW(dx_over_dweight, BACKWARD), ROW(x_device_odd, BOTH), ROW(x_device_end, BOTH), ROW(x_device_far, BOTH),
        ROW(x_device_strided, BOTH), ROW(device_overlap, FORWARD), ROW(device_gradient_overlap, BACKWARD),
#undef ROW
    };
    static Small spoilt;
    for (size_t row = 0; row < sizeof table / sizeof *table; ++row) {
        for (int call = FORWARD; call <= BACKWARD; ++call) {
            if (!(table[row].calls & call)) continue;
            small_init(&spoilt);
            table[row].spoil(&spoilt);
            const grilly_status got =
                (call == FORWARD ? grilly_conv2d_forward : grilly_conv2d_backward)(conv, &spoilt.io);
            CHECK(got == GRILLY_ERROR_INVALID_ARGUMENT && grilly_last_error_message()[0] != '\0',
                  "%s in %s: got %s (%s)", table[row].name, call == FORWARD ? "forward" : "backward",
                  grilly_status_string(got), grilly_last_error_message());
        }
    }
    group("wrong tensors");
}

/* A misaligned copy of a tensor's memory, one byte off. */
static void misalign(grilly_tensor *tensor, unsigned char *room) {
    memcpy(room + 1, tensor->data, tensor->bytes);
    tensor->data = room + 1;
}

/* The tensor's elements along its last axis in reverse order, with a negative stride and the offset that needs. */
static void reverse_rows(grilly_tensor *tensor, float *mirrored) {
    const float *values = tensor->data;
    const int64_t width = tensor->shape[3], count = (int64_t)(tensor->bytes / sizeof(float));
    for (int64_t i = 0; i < count; ++i) mirrored[i - i % width + (width - 1 - i % width)] = values[i];
    tensor->data = mirrored;
    tensor->strides[3] = -1;
    tensor->offset = (uint64_t)(width - 1) * sizeof(float);
}

static void check_odd_but_legal(void) {
    static Small small;
    static unsigned char rooms[8][4096];
    small_init(&small);
    grilly_tensor *const tensors[8] = {&small.tensor_x, &small.tensor_weight, &small.tensor_bias, &small.tensor_y,
                                       &small.tensor_dy, &small.tensor_dx, &small.tensor_dweight, &small.tensor_dbias};
    for (int i = 0; i < 8; ++i) misalign(tensors[i], rooms[i]);
    OK(grilly_conv2d_forward(conv, &small.io));
    OK(grilly_conv2d_backward(conv, &small.io));
    const struct {
        const char *name;
        const void *got, *want;
        size_t bytes;
    } results[] = {{"y", small.tensor_y.data, good.y, sizeof good.y},
                   {"dx", small.tensor_dx.data, good.dx, sizeof good.dx},
                   {"dweight", small.tensor_dweight.data, good.dweight, sizeof good.dweight},
                   {"dbias", small.tensor_dbias.data, good.dbias, sizeof good.dbias}};
    for (size_t i = 0; i < sizeof results / sizeof *results; ++i) {
        CHECK(memcmp(results[i].got, results[i].want, results[i].bytes) == 0, "misaligned %s differs", results[i].name);
    }
    group("misaligned host memory");

    static float mirrored_x[X_SIZE], mirrored_y[Y_SIZE];
    small_init(&small);
    reverse_rows(&small.tensor_x, mirrored_x);
    reverse_rows(&small.tensor_y, mirrored_y);
    OK(grilly_conv2d_forward(conv, &small.io));
    for (int i = 0; i < Y_SIZE; ++i) {
        const int mirror = i - i % 6 + (5 - i % 6);
        CHECK(mirrored_y[mirror] == good.y[i], "mirrored y[%d] is %g, want %g", i, mirrored_y[mirror], good.y[i]);
    }
    group("negative strides");

    small_init(&small);
    memset(small.tensor_bias.strides, 0, sizeof small.tensor_bias.strides);
    small.bias[0] = 0;
    OK(grilly_conv2d_forward(conv, &small.io));
    for (int i = 0; i < Y_SIZE; ++i) {
        const float want = good.y[i] - good.bias[i / 30 % 6];
        CHECK(small.y[i] == want, "y[%d] with a broadcast bias is %g, want %g", i, small.y[i], want);
    }
    group("a bias of stride 0");

    small_init(&small);
    small.tensor_x.shape[0] = small.tensor_y.shape[0] = small.tensor_dy.shape[0] = small.tensor_dx.shape[0] = 0;
    small.tensor_x.data = small.tensor_y.data = NULL;
    small.tensor_x.bytes = small.tensor_y.bytes = 0;
    memset(small.dweight, 0x7f, sizeof small.dweight);
    OK(grilly_conv2d_forward(conv, &small.io));
    OK(grilly_conv2d_backward(conv, &small.io));
    for (int i = 0; i < WEIGHT_SIZE; ++i) CHECK(small.dweight[i] == 0, "dweight[%d] of no images is not 0", i);
    group("a batch of 0");

    small_init(&small);
    small.io.x = small.io.weight = NULL;
    small.io.dx = small.io.dweight = NULL;
    OK(grilly_conv2d_backward(conv, &small.io));
    CHECK(memcmp(small.dbias, good.dbias, sizeof good.dbias) == 0, "dbias alone differs");
    small.io.flags = GRILLY_ACCUMULATE_INPUT;
    OK(grilly_conv2d_backward(conv, &small.io));
    CHECK(memcmp(small.dbias, good.dbias, sizeof good.dbias) == 0, "dbias accumulated as if it were dx");
    small.io.flags = GRILLY_ACCUMULATE_PARAMETERS;
    OK(grilly_conv2d_backward(conv, &small.io));
    for (int i = 0; i < BIAS_SIZE; ++i) CHECK(small.dbias[i] == 2 * good.dbias[i], "dbias[%d] did not accumulate", i);
    group("one gradient alone, then twice");
}

static void check_plans(void) {
    grilly_plan *plan = NULL;
    grilly_plan_info info;
    static Small small;
    small_init(&small);
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_plan(conv, 3, X_SHAPE, 0, &plan));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_plan(conv, -1, X_SHAPE, 0, &plan));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_plan(conv, 0, X_SHAPE, 16, &plan));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_plan(conv, 0, Y_SHAPE, 0, &plan));
    CHECK(plan == NULL, "a refused plan was written");
    OK(grilly_conv2d_plan(conv, GRILLY_PASS_FORWARD, X_SHAPE, GRILLY_WITH_BIAS, &plan));
    grilly_plan_info_init(&info, sizeof info);
    OK(grilly_plan_info_get(plan, &info));
    CHECK(info.slices > 0, "a plan with work has no slices");
    const uint32_t ranges[][2] = {{info.slices, 1}, {0, info.slices + 1}, {info.slices + 1, 0}, {UINT32_MAX, 1},
                                  {1, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; ++i) {
        REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_plan_run(plan, &small.io, ranges[i][0], ranges[i][1]));
    }
    small.tensor_x.shape[0] = small.tensor_y.shape[0] = 1;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_plan_run(plan, &small.io, 0, info.slices));
    small_init(&small);
    small.io.bias = NULL;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_plan_run(plan, &small.io, 0, info.slices));
    small_init(&small);
    OK(grilly_plan_run(plan, &small.io, 0, info.slices));
    CHECK(memcmp(small.y, good.y, sizeof good.y) == 0, "a plan's y differs from forward's");
    OK(grilly_plan_destroy(plan));
    group("plans");
}

static void check_weights(void) {
    static Small small;
    grilly_weights *weights = NULL, *other = NULL;
    grilly_conv2d *grouped = NULL;
    Desc desc = small_desc();
    small_init(&small);
    OK(grilly_weights_create(conv, &small.tensor_weight, &weights));
    small.io.prepared = weights;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_forward(conv, &small.io)); /* a raw weight as well */
    small.io.weight = NULL;
    OK(grilly_conv2d_forward(conv, &small.io));
    CHECK(memcmp(small.y, good.y, sizeof good.y) == 0, "y from packed weights differs");
    desc.groups = 2;
    OK(grilly_conv2d_create(context, &desc, &grouped));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_forward(grouped, &small.io));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_weights_create(grouped, &small.tensor_weight, &other));
    CHECK(other == NULL, "refused weights were written");
    OK(grilly_conv2d_destroy(grouped));
    OK(grilly_weights_destroy(weights));
    group("packed weights");
}

static void check_buffers_and_devices(int32_t device) {
    float values[4];
    uint32_t devices = 0;
    grilly_buffer *none = NULL;
    grilly_context *no_context = NULL, *second = NULL;
    grilly_context_desc desc;
    grilly_device_info info;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_write(buffer, 4096, values, 4));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_write(buffer, 4097, NULL, 0));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_write(buffer, UINT64_MAX, values, 4));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_read(buffer, 4090, values, 16));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_buffer_read(buffer, 0, values, UINT64_MAX));
    const grilly_status huge = grilly_buffer_create(context, UINT64_MAX, &none);
    CHECK(huge != GRILLY_OK && huge != GRILLY_ERROR_INTERNAL && none == NULL, "a buffer of 2^64 - 1 bytes: %s",
          grilly_status_string(huge));
    group("wrong buffers");

    OK(grilly_device_count(&devices));
    CHECK(devices >= 1, "there is no CPU device");
    const int32_t missing[] = {(int32_t)devices, INT32_MAX, -3, INT32_MIN};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; ++i) {
        grilly_context_desc_init(&desc, sizeof desc);
        desc.device = missing[i];
        REFUSED(GRILLY_ERROR_NO_DEVICE, grilly_context_create(&desc, &no_context));
    }
    grilly_context_desc_init(&desc, sizeof desc);
    desc.flags = 0x80000000u;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_context_create(&desc, &no_context));
    grilly_context_desc_init(&desc, sizeof desc);
    desc.reserved = 1;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_context_create(&desc, &no_context));
    CHECK(no_context == NULL, "a refused context was written");
    grilly_device_info_init(&info, sizeof info);
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_device_info_get(devices, &info));
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_device_info_get(UINT32_MAX, &info));
    group("wrong devices");

    /* A buffer of one context is none of another's. */
    static Small small;
    grilly_buffer *foreign = NULL;
    second = open_context(device);
    OK(grilly_buffer_create(second, 4096, &foreign));
    small_init(&small);
    on_device(&small.tensor_x, 0);
    small.tensor_x.buffer = foreign;
    REFUSED(GRILLY_ERROR_INVALID_ARGUMENT, grilly_conv2d_forward(conv, &small.io));
    OK(grilly_buffer_destroy(foreign));
    OK(grilly_context_destroy(second));
    group("a buffer of another context");
}

int main(int argc, char **argv) {
    const int32_t device = device_argument(argc, argv);
    const Desc desc = small_desc();
    context = open_context(device);
    OK(grilly_conv2d_create(context, &desc, &conv));
    OK(grilly_buffer_create(context, 4096, &buffer));
    small_init(&good);
    OK(grilly_conv2d_forward(conv, &good.io));
    OK(grilly_conv2d_backward(conv, &good.io));
    group("correct calls");
    check_descriptors();
    check_tensors();
    check_odd_but_legal();
    check_plans();
    check_weights();
    check_buffers_and_devices(device);
    OK(grilly_buffer_destroy(buffer));
    OK(grilly_conv2d_destroy(conv));
    OK(grilly_context_destroy(context));
    group("the end");
    return finish();
}
