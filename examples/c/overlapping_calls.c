/* Calls that overlap: three layers are submitted one behind the other, and the host is free until the last is done.
 *
 *     cc overlapping_calls.c -o overlapping_calls $(pkg-config --cflags --libs grilly)
 *     ./overlapping_calls [cpu|INDEX]
 */
#include <grilly.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(grilly_status status) {
    if (status == GRILLY_OK) return;
    fprintf(stderr, "%s: %s\n", grilly_status_string(status), grilly_last_error_message());
    exit(1);
}

enum { C = 8, SIZE = 32, LAYERS = 3, VALUES = C * SIZE * SIZE, WEIGHTS = C * C * 3 * 3 };

int main(int argc, char **argv) {
    const int64_t shape[4] = {1, C, SIZE, SIZE}, weight_shape[4] = {C, C, 3, 3};
    grilly_context_desc device;
    grilly_context_desc_init(&device, sizeof device);
    if (argc > 1) device.device = strcmp(argv[1], "cpu") == 0 ? GRILLY_DEVICE_CPU : atoi(argv[1]);
    grilly_context *context = NULL;
    check(grilly_context_create(&device, &context));
    grilly_conv2d_desc desc;
    grilly_conv2d_desc_init(&desc, sizeof desc);
    desc.in_channels = desc.out_channels = C;
    desc.kernel[0] = desc.kernel[1] = 3;
    desc.padding_begin[0] = desc.padding_begin[1] = desc.padding_end[0] = desc.padding_end[1] = 1;
    grilly_conv2d *conv = NULL;
    check(grilly_conv2d_create(context, &desc, &conv));

    /* Calls whose tensors all lie in buffers need nothing from the host while they are under way. */
    grilly_buffer *weight = NULL, *values[LAYERS + 1];
    grilly_tensor tweight, tvalues[LAYERS + 1];
    check(grilly_buffer_create(context, WEIGHTS * sizeof(float), &weight));
    grilly_tensor_init_device(&tweight, sizeof tweight, weight, 0, 4, weight_shape);
    for (int i = 0; i <= LAYERS; ++i) {
        check(grilly_buffer_create(context, VALUES * sizeof(float), &values[i]));
        grilly_tensor_init_device(&tvalues[i], sizeof tvalues[i], values[i], 0, 4, shape);
    }

    /* Host memory that the device reaches without a copy on the way, for what is written there again and again. */
    grilly_buffer *host = NULL;
    void *memory = NULL;
    check(grilly_buffer_create_host(context, VALUES * sizeof(float), &host, &memory));
    float *array = memory;
    for (int i = 0; i < WEIGHTS; ++i) array[i] = i % 9 == 4 && i / 9 % (C + 1) == 0 ? 2.0f : 0.0f; /* twice the input */
    check(grilly_buffer_write(weight, 0, array, WEIGHTS * sizeof(float)));
    for (int i = 0; i < VALUES; ++i) array[i] = (float)(i % 5);
    check(grilly_buffer_write(values[0], 0, array, VALUES * sizeof(float)));

    /* They run in this order, so each may read what the one before it writes. */
    grilly_ticket *tickets[LAYERS];
    for (int i = 0; i < LAYERS; ++i) {
        grilly_conv2d_io io;
        grilly_conv2d_io_init(&io, sizeof io);
        io.x = &tvalues[i];
        io.weight = &tweight;
        io.y = &tvalues[i + 1];
        check(grilly_conv2d_submit_forward(conv, &io, &tickets[i]));
    }
    grilly_status status;
    while ((status = grilly_ticket_wait(tickets[LAYERS - 1], 1000000)) == GRILLY_ERROR_TIMEOUT) { /* other work */
    }
    check(status); /* GRILLY_ERROR_DEVICE_LOST if it will never be done */
    check(grilly_buffer_read(values[LAYERS], 0, array, VALUES * sizeof(float)));
    int wrong = 0;
    for (int i = 0; i < VALUES; ++i) wrong += array[i] != 8 * (float)(i % 5);
    printf("%d layers, %d of %d values wrong\n", LAYERS, wrong, (int)VALUES);

    for (int i = 0; i < LAYERS; ++i) check(grilly_ticket_destroy(tickets[i]));
    for (int i = 0; i <= LAYERS; ++i) check(grilly_buffer_destroy(values[i]));
    check(grilly_buffer_destroy(weight));
    check(grilly_buffer_destroy(host));
    check(grilly_conv2d_destroy(conv));
    check(grilly_context_destroy(context));
    return wrong != 0;
}
