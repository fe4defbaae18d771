/* The life of a weight: initialise, pack, forward, backward, a step of gradient descent, pack again.
 *
 *     cc forward_backward.c -o forward_backward $(pkg-config --cflags --libs grilly)
 *     ./forward_backward [cpu|INDEX]
 *
 * It trains a 3x3 convolution to be what another one is (here: a blur of each channel), and prints the loss. */
#include <grilly.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(grilly_status status) {
    if (status == GRILLY_OK) return;
    fprintf(stderr, "%s: %s\n", grilly_status_string(status), grilly_last_error_message());
    exit(1);
}

enum { N = 4, C = 3, K = 3, SIZE = 16, IMAGES = N * C * SIZE * SIZE, WEIGHTS = K * C * 3 * 3 };
static float x[IMAGES], y[IMAGES], wanted[IMAGES], dy[IMAGES], weight[WEIGHTS], dweight[WEIGHTS];

int main(int argc, char **argv) {
    const int64_t image_shape[4] = {N, C, SIZE, SIZE}, weight_shape[4] = {K, C, 3, 3};
    grilly_context_desc device;
    grilly_context_desc_init(&device, sizeof device); /* the best GPU, or else the CPU */
    if (argc > 1) device.device = strcmp(argv[1], "cpu") == 0 ? GRILLY_DEVICE_CPU : atoi(argv[1]);
    grilly_context *context = NULL;
    check(grilly_context_create(&device, &context));

    grilly_conv2d_desc desc;
    grilly_conv2d_desc_init(&desc, sizeof desc);
    desc.in_channels = C;
    desc.out_channels = K;
    desc.kernel[0] = desc.kernel[1] = 3;
    desc.padding_begin[0] = desc.padding_begin[1] = desc.padding_end[0] = desc.padding_end[1] = 1;
    grilly_conv2d *conv = NULL;
    check(grilly_conv2d_create(context, &desc, &conv));

    /* Tensors are views of our arrays; one structure names those of a call. */
    grilly_tensor tx, ty, tdy, tweight, tdweight;
    grilly_tensor_init_host(&tx, sizeof tx, x, sizeof x, 4, image_shape);
    grilly_tensor_init_host(&ty, sizeof ty, y, sizeof y, 4, image_shape);
    grilly_tensor_init_host(&tdy, sizeof tdy, dy, sizeof dy, 4, image_shape);
    grilly_tensor_init_host(&tweight, sizeof tweight, weight, sizeof weight, 4, weight_shape);
    grilly_tensor_init_host(&tdweight, sizeof tdweight, dweight, sizeof dweight, 4, weight_shape);
    grilly_conv2d_io io;
    grilly_conv2d_io_init(&io, sizeof io);
    io.x = &tx;
    io.y = &ty;

    /* The answer to find: each output channel is the blur of its input channel. */
    for (int i = 0; i < IMAGES; ++i) x[i] = (float)(rand() % 2001 - 1000) / 1000;
    for (int i = 0; i < WEIGHTS; ++i) weight[i] = i / 9 % (C + 1) == 0 ? 1.0f / 9 : 0;
    io.weight = &tweight;
    check(grilly_conv2d_forward(conv, &io));
    memcpy(wanted, y, sizeof y);

    check(grilly_conv2d_init_parameters(conv, 1, weight, NULL)); /* as PyTorch does */
    io.weight = NULL;
    io.dy = &tdy;
    io.dweight = &tdweight;
    double first = 0, loss = 0;
    for (int step = 0; step < 100; ++step) {
        grilly_weights *packed = NULL; /* laid out for the device once, for as many calls as you like */
        check(grilly_weights_create(conv, &tweight, &packed));
        io.prepared = packed;
        check(grilly_conv2d_forward(conv, &io));
        loss = 0;
        for (int i = 0; i < IMAGES; ++i) {
            dy[i] = 2 * (y[i] - wanted[i]) / IMAGES;
            loss += (y[i] - wanted[i]) * (y[i] - wanted[i]) / IMAGES;
        }
        check(grilly_conv2d_backward(conv, &io));
        for (int i = 0; i < WEIGHTS; ++i) weight[i] -= 0.8f * dweight[i];
        check(grilly_weights_destroy(packed)); /* it shows the old weight */
        if (step == 0) first = loss;
    }
    printf("loss %.2g, after 100 steps %.2g\n", first, loss);

    check(grilly_conv2d_destroy(conv));
    check(grilly_context_destroy(context));
    return loss < first / 100 ? 0 : 1;
}
