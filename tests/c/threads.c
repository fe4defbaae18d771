/* Several threads use one convolution, while each creates and destroys objects of its own. */
#include "test.h"

#include <pthread.h>

enum { THREADS = 6, ROUNDS = 40 };

static Handles shared;
static Small expected;

typedef struct {
    pthread_t thread;
    grilly_status status; /* of the first call that failed */
    const char *what;
    char message[256];
} Worker;

/* The checks of test.h count for one thread; workers leave what they found to the main one. */
#define STEP(call)                                                                                \
    do {                                                                                          \
        const grilly_status step = (call);                                                        \
        if (step != GRILLY_OK) {                                                                  \
            worker->status = step;                                                                \
            worker->what = #call;                                                                 \
            strncpy(worker->message, grilly_last_error_message(), sizeof worker->message - 1);    \
            free(small);                                                                          \
            return NULL;                                                                          \
        }                                                                                         \
    } while (0)

#define SAME(got, want)                                     \
    do {                                                    \
        if (memcmp(got, want, sizeof want) != 0) {          \
            worker->status = GRILLY_ERROR_INTERNAL;         \
            worker->what = #got " differs";                 \
            free(small);                                    \
            return NULL;                                    \
        }                                                   \
    } while (0)

static void *work(void *argument) {
    Worker *worker = argument;
    Small *small = malloc(sizeof *small);
    const grilly_conv2d_desc desc = small_desc();
    if (small == NULL) {
        worker->status = GRILLY_ERROR_OUT_OF_HOST_MEMORY;
        return NULL;
    }
    for (int round = 0; round < ROUNDS; ++round) {
        grilly_conv2d *conv = NULL;
        grilly_weights *weights = NULL;
        grilly_plan *plan = NULL;
        grilly_buffer *buffer = NULL;
        grilly_plan_info info;
        small_init(small);
        STEP(grilly_conv2d_forward(shared.conv, &small->io));
        SAME(small->y, expected.y);
        STEP(grilly_conv2d_backward(shared.conv, &small->io));
        SAME(small->dx, expected.dx);
        SAME(small->dweight, expected.dweight);

        STEP(grilly_conv2d_create(shared.context, &desc, &conv));
        STEP(grilly_weights_create(conv, &small->tensor_weight, &weights));
        STEP(grilly_buffer_create(shared.context, sizeof small->x, &buffer));
        STEP(grilly_buffer_write(buffer, 0, small->x, sizeof small->x));
        STEP(grilly_conv2d_plan(conv, GRILLY_PASS_FORWARD, X_SHAPE, GRILLY_WITH_BIAS | GRILLY_WITH_WEIGHTS, &plan));
        grilly_plan_info_init(&info, sizeof info);
        STEP(grilly_plan_info_get(plan, &info));
        grilly_tensor_init_device(&small->tensor_x, sizeof small->tensor_x, buffer, 0, 4, X_SHAPE);
        small->io.weight = NULL;
        small->io.prepared = weights;
        memset(small->y, 0, sizeof small->y);
        STEP(grilly_plan_run(plan, &small->io, 0, info.slices));
        SAME(small->y, expected.y);
        memset(small->x, 0, sizeof small->x);
        STEP(grilly_buffer_read(buffer, 0, small->x, sizeof small->x));
        SAME(small->x, expected.x);
        STEP(grilly_conv2d_destroy(conv));
        STEP(grilly_plan_destroy(plan));
        STEP(grilly_weights_destroy(weights));
        STEP(grilly_buffer_destroy(buffer));
    }
    free(small);
    return NULL;
}

int main(int argc, char **argv) {
    static Worker workers[THREADS];
    shared = open_handles(open_context(device_argument(argc, argv)));
    small_init(&expected);
    OK(grilly_conv2d_forward(shared.conv, &expected.io));
    OK(grilly_conv2d_backward(shared.conv, &expected.io));
    group("one thread");

    for (int i = 0; i < THREADS; ++i) {
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "no thread");
    }
    for (int i = 0; i < THREADS; ++i) {
        CHECK(pthread_join(workers[i].thread, NULL) == 0, "no end");
        CHECK(workers[i].status == GRILLY_OK, "thread %d: %s: %s (%s)", i, workers[i].what,
              grilly_status_string(workers[i].status), workers[i].message);
    }
    /* Messages belong to their thread: this one has had no failure. */
    CHECK(grilly_last_error_message()[0] == '\0', "another thread's message: %s", grilly_last_error_message());
    group("many threads");

    close_children(&shared);
    OK(grilly_context_destroy(shared.context));
    group("the end");
    return finish();
}
